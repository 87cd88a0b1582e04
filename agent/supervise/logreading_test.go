package supervise

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func seqs(t *testing.T, lines []json.RawMessage) (found []int64) {
	t.Helper()
	for _, line := range lines {
		var said struct{ Seq int64 }
		if err := json.Unmarshal(line, &said); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		found = append(found, said.Seq)
	}
	return found
}

func openLog(t *testing.T) *runLog {
	t.Helper()
	l, err := openRunLog(filepath.Join(t.TempDir(), "log"), owner{os.Getuid(), os.Getgid()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.close(time.Second) })
	return l
}

func TestALogIsReadInPiecesWithoutAGapAcrossItsRotation(t *testing.T) {
	l := openLog(t)
	text := strings.Repeat("x", 1000)
	const lines = 6000 // more than a file holds
	for n := range lines {
		l.add(logLine{at: time.Unix(int64(n), 0), stream: streamOut, text: text, ours: true})
	}
	var last place
	after := int64(0)
	for after < lines {
		got, err := l.read(context.Background(), after, &last)
		if err != nil || len(got.Lines) == 0 {
			t.Fatalf("after %d: %v %d", after, err, len(got.Lines))
		}
		for _, seq := range seqs(t, got.Lines) {
			if seq != after+1 {
				t.Fatalf("%d follows %d", seq, after)
			}
			after = seq
		}
	}
	if _, err := os.Stat(filepath.Join(l.dir, "log.1.jsonl")); err != nil {
		t.Error("there was no rotation to read across")
	}
	// from somewhere else than where the last one has stopped
	got, err := l.read(context.Background(), lines-2, &last)
	if found := seqs(t, got.Lines); err != nil || len(found) != 2 || found[0] != lines-1 {
		t.Errorf("%v %v", found, err)
	}
}

func TestWhatMakesNoSenseInALogIsPassedOver(t *testing.T) {
	l := openLog(t)
	l.system("one")
	l.read(context.Background(), 0, &place{})
	// the app, where it has the uid of its log
	file, _ := os.OpenFile(filepath.Join(l.dir, "log.jsonl"), os.O_WRONLY|os.O_APPEND, 0)
	file.WriteString("no JSON\n" + strings.Repeat("y", 3*lineBytes) + "\n{\"seq\": 1, \"text\": \"again\"}\n")
	file.Close()
	l.system("two")
	got, err := l.read(context.Background(), 1, &place{})
	if found := seqs(t, got.Lines); err != nil || len(found) != 1 || found[0] != 2 {
		t.Errorf("%v %v", found, err)
	}
	os.Remove(filepath.Join(l.dir, "log.jsonl"))
	os.Symlink("/etc/passwd", filepath.Join(l.dir, "log.jsonl"))
	if got, err := l.read(context.Background(), 0, &place{}); err == nil {
		t.Errorf("a link is followed: %s", got.Lines)
	}
}
