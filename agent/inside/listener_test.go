package inside

import (
	"fmt"
	"testing"
)

const kernelTable = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 7 1 0000000000000000 100 0 0 10 0
   1: 0100007F:AD83 0100007F:1388 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0000000000000000 20 4 30 10 -1
   2: 00000000000000000000000001000000:0BB8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 9 1 0 100 0 0 10 0
   3: garbage
`

func TestTheKernelsTableIsRead(t *testing.T) {
	var got string
	for _, s := range listeners(parseTable([]byte(kernelTable))) {
		got += fmt.Sprintf("%s by %d, inode %d; ", s.addr, s.uid, s.inode)
	}
	if got != "127.0.0.1:5000 by 1000, inode 7; [::1]:3000 by 1000, inode 9; " {
		t.Error(got)
	}
}

func TestOnlyWhatAFreshProcessWouldDoIsWarm(t *testing.T) {
	no := false
	base := map[string]string{"PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8"}
	for _, c := range []struct {
		spec startSpec
		kind string
	}{
		{startSpec{Argv: []string{"python3", "app.py"}}, "python"},
		{startSpec{Argv: []string{"python", "-m", "flask", "run"}}, "python"},
		{startSpec{Argv: []string{"node", "server.js"}}, "node"},
		{startSpec{Argv: []string{"python3", "app.py"}, Env: map[string]string{"PYTHONUNBUFFERED": "1", "SECRET": "x"}}, "python"},
		{startSpec{Argv: []string{"python3", "app.py"}, Env: map[string]string{"PYTHONUNBUFFERED": "0"}}, ""},
		{startSpec{Argv: []string{"node", "server.js"}, Env: map[string]string{"NODE_OPTIONS": "--max-old-space-size=64"}}, ""},
		{startSpec{Argv: []string{"python3", "-u", "app.py"}}, ""},
		{startSpec{Argv: []string{"node", "--import", "x", "server.js"}}, ""},
		{startSpec{Argv: []string{"gunicorn", "app:app"}}, ""},
		{startSpec{Argv: []string{"python3"}}, ""},
		{startSpec{Shell: "python3 app.py"}, ""},
		{startSpec{Argv: []string{"python3", "app.py"}, Warm: &no}, ""},
	} {
		if kind, _ := warmable(c.spec, base); kind != c.kind {
			t.Errorf("%+v: %q, want %q", c.spec, kind, c.kind)
		}
	}
}
