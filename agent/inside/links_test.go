package inside

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

func TestALinkIsMadeWhereTheAppHasNothingOfItsName(t *testing.T) {
	t.Parallel()
	b := boot(t, options{})
	b.inject(map[string]string{"app.py": server(`[os.readlink("a"), os.stat("a", follow_symlinks=False).st_uid, open("b/c").read(), os.path.lexists("/tmp/d")]`, "0.0.0.0", 8080), "b/c": "own"})
	links := map[string]string{"a": "/layers/x", "b": "/layers/y", "../tmp/d": "/layers/z"}
	if status, out := b.start(map[string]any{"links": links}); status != 200 {
		t.Fatal(out)
	}
	if got := b.get(); got != `['/layers/x', 1000, 'own', False]` {
		t.Error(got)
	}
	b.must("POST", "/stop", map[string]any{"grace_s": 3})
	if logs := b.logs(); !strings.Contains(logs, "b is the app's own") || !strings.Contains(logs, "outside of the app") {
		t.Error(logs)
	}
}

// What a waiting process imported must be what a fresh one would have imported, had it had the installed packages.
func TestAWarmProcessTakesInstalledPackagesOverUnlessItWouldHaveImportedThem(t *testing.T) {
	t.Parallel()
	_, program := python(t)
	version, err := exec.Command("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").Output()
	if err != nil {
		t.Fatal(err)
	}
	folder := "layer/lib/python" + strings.TrimSpace(string(version)) + "/site-packages/"
	for _, c := range []struct {
		module string
		warm   bool
	}{{"thing", true}, {"wished_for", false}} {
		b := boot(t, options{zygotes: []zygoteSpec{{Name: "db", Kind: "python", Argv: []string{program, "/zygote/zygote.py", "db", "sqlite3", "wished_for"}, Modules: []string{"sqlite3"}}}})
		b.inject(map[string]string{
			"app.py":                     "import " + c.module + ", site\n" + server(`[`+c.module+`.WHO, "sqlite3" in sys.modules, [p for p in sys.path if "layer" in p], site.USER_BASE]`, "0.0.0.0", 8080),
			folder + c.module + ".py":    "WHO = 'installed'\n",
			folder + "email/__init__.py": "raise RuntimeError('it shadows the standard library')\n",
		})
		if status, out := b.start(map[string]any{"env": map[string]string{"PYTHONUSERBASE": "/app/layer"}}); status != 200 {
			t.Fatal(out)
		}
		want := fmt.Sprintf(`['installed', %s, ['/app/%s'], '/app/layer']`, map[bool]string{true: "True", false: "False"}[c.warm], strings.TrimSuffix(folder, "/"))
		if got := b.get(); got != want {
			t.Errorf("%s: %s\n%s", c.module, got, want)
		}
	}
}
