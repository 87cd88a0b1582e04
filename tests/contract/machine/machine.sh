# What a shell finds, in every template. A line for each thing that is not as on any Linux machine; then `done`.
check() { # NAME COMMAND...
  name=$1
  shift
  said=$("$@" 2>&1) || echo "wrong: $name: $said"
}
writable() { mkdir -p "$1" && echo x > "$1/.probe" && rm "$1/.probe"; }

for folder in . "$HOME" "$TMPDIR" /tmp /var/tmp /dev/shm /data /data/sub; do check "write in $folder" writable "$folder"; done
check "HOME is the user's" test "$(sed -n "s/^$(id -un):.*:\(.*\):.*/\1/p" /etc/passwd)" = "$HOME"
check "the user has a name" test "$(id -un)" = app
check "the group has a name" test "$(id -gn)" = app
check "the host's name" sh -c 'test -n "$(hostname)"'
check "the host's name resolves" sh -c 'getent hosts "$(hostname)"'
check "localhost" sh -c 'getent ahosts localhost | grep -q 127.0.0.1'
check "services have ports" getent services https
check "LANG is there" sh -c 'locale -a | grep -qi "^c.utf-\?8$"'
check "no warning of the locale" sh -c 'test -z "$(LC_ALL=$LANG locale 2>&1 >/dev/null)"'
check "time zones" test "$(TZ=Asia/Tokyo date -d @0 +%H)" = 09
check "MIME types" grep -q '^image/svg+xml' /etc/mime.types
check "certificates" grep -q BEGIN /etc/ssl/certs/ca-certificates.crt
for device in null zero full random urandom; do check "/dev/$device" test -c "/dev/$device"; done
check "random" sh -c 'test "$(head -c 16 /dev/urandom | wc -c)" = 16'
check "/dev/stdout" sh -c 'echo x > /dev/stdout'
check "/dev/stderr" sh -c 'echo x > /dev/stderr'
check "/dev/fd" sh -c 'test -e /dev/fd/0'
for file in cpuinfo meminfo loadavg uptime stat self/status self/mounts sys/kernel/hostname; do check "/proc/$file" cat "/proc/$file"; done
check "bash" bash -c 'cat <(echo x) >/dev/null; [[ a == a ]]'
check "env" /usr/bin/env bash -c :
check "descriptors" test "$(ulimit -n)" -ge 1024
check "no core files" test "$(ulimit -c)" = 0
check "processors" test "$(nproc)" -ge 1
check "a program of its own" sh -c 'printf "#!/bin/sh\necho x\n" > own && chmod +x own && ./own'
check "links" sh -c 'ln -sf own link && ln -f own hard && test -e link -a hard -ef own'
for program in ls cat grep sed awk find tar gzip unzip sort head tail tr cut xargs date sleep kill ps df du wc id which mktemp; do check "$program" which "$program"; done
echo done
