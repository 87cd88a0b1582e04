package inside

import (
	"errors"
	"os"
	"path/filepath"
)

// link makes links into layers in the app's directory. What the app brought of that name stays; they are made as the app,
// for which other links may be in the way.
func (a *agent) link(links map[string]string) {
	for name, target := range links {
		if !filepath.IsLocal(name) {
			a.out.system("no link %q: it would lie outside of the app", name)
			continue
		}
		err := lockedAs(a.who, func() error { return os.Symlink(target, filepath.Join(a.appDir, name)) })
		switch {
		case errors.Is(err, os.ErrExist):
			a.out.system("%s is the app's own, and is used instead of what was installed", name)
		case err != nil:
			a.out.system("no link %q: %v", name, err)
		}
	}
}
