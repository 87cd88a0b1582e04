#!/bin/sh
# A status page from a shell script: busybox serves the folder, a loop rewrites one file in it.
set -eu
port="${PORT:-8080}"

status() {
  cat > www/status.json.new <<END
{"at": "$(date -u +%Y-%m-%dT%H:%M:%SZ)", "kernel": "$(uname -sr)", "up": "$(cut -d' ' -f1 /proc/uptime)"}
END
  mv www/status.json.new www/status.json
}

status
while sleep 5; do status; done &

echo "status page on port $port"
exec busybox httpd -f -p "0.0.0.0:$port" -h www
