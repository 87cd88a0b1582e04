package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func openTestLog(t *testing.T) *runLog {
	t.Helper()
	l, err := openRunLog(filepath.Join(t.TempDir(), "log"), owner{os.Getuid(), os.Getgid()})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func numbered(t *testing.T, l *runLog) []record {
	t.Helper()
	l.close(5 * time.Second)
	records := readRecords(t, l.dir)
	for i := 1; i < len(records); i++ {
		if records[i].Seq != records[i-1].Seq+1 {
			t.Fatalf("seq %d follows %d", records[i].Seq, records[i-1].Seq)
		}
	}
	return records
}

func TestALogRotatesOnceAndLosesNoNumber(t *testing.T) {
	t.Parallel()
	l := openTestLog(t)
	// System lines pass the flood limit.
	for i := range 800 {
		l.system("%d %s", i, strings.Repeat("y", 14000))
	}
	records := numbered(t, l)
	if last := records[len(records)-1]; last.Seq != 800 {
		t.Errorf("last seq %d", last.Seq)
	}
	entries, _ := os.ReadDir(l.dir)
	for _, e := range entries {
		info, _ := e.Info()
		if info.Size() > logFileMax || info.Mode().Perm() != 0o640 {
			t.Errorf("%s: %d bytes, mode %v", e.Name(), info.Size(), info.Mode())
		}
	}
	if len(entries) != 2 {
		t.Errorf("%d files", len(entries))
	}
}

func TestAFloodIsCountedNotKept(t *testing.T) {
	t.Parallel()
	l := openTestLog(t)
	const sent = 10000
	for i := range sent {
		l.app(streamOut, fmt.Sprintf("line %d", i), false)
	}
	time.Sleep(1100 * time.Millisecond) // the second ends without another line
	records := numbered(t, l)
	kept, dropped := 0, 0
	for _, r := range records {
		if r.Stream == streamSystem {
			var n int
			fmt.Sscanf(r.Text, "%d lines dropped", &n)
			dropped += n
		} else {
			kept++
		}
	}
	if kept+dropped != sent || kept < floodLines || kept > 2*floodLines {
		t.Errorf("%d kept, %d dropped of %d", kept, dropped, sent)
	}
}

func TestLongLinesAreSplitBetweenCharacters(t *testing.T) {
	t.Parallel()
	l := openTestLog(t)
	s := lineSplitter{emit: func(text []byte, more bool) { l.app(streamOut, string(text), more) }}
	long := strings.Repeat("€", 3*maxText/3+1000)
	s.Write([]byte(long[:10001]))
	s.Write([]byte(long[10001:] + "\nshort\r\nexact "))
	s.Write([]byte(strings.Repeat("z", maxText-6) + "\nrest"))
	s.end()
	records := numbered(t, l)
	joined := ""
	for _, r := range records {
		if len(r.Text) > maxText || !utf8.ValidString(r.Text) {
			t.Errorf("text of %d bytes", len(r.Text))
		}
		joined += r.Text
		if !r.More {
			joined += "\n"
		}
	}
	if want := long + "\nshort\nexact " + strings.Repeat("z", maxText-6) + "\nrest\n"; joined != want {
		t.Errorf("%d bytes instead of %d", len(joined), len(want))
	}
}

func TestInvalidUTF8IsReplaced(t *testing.T) {
	t.Parallel()
	l := openTestLog(t)
	l.app(streamErr, "a\xff\xfeb\x00\u2028<&>", false)
	records := numbered(t, l)
	if records[0].Text != "a\uFFFDb\x00\u2028<&>" || records[0].Stream != streamErr {
		t.Errorf("%q", records[0].Text)
	}
}

func TestALogThatIsThereIsContinued(t *testing.T) {
	t.Parallel()
	l := openTestLog(t)
	l.app(streamOut, "one", false)
	l.close(time.Second)
	again, err := openRunLog(l.dir, l.who)
	if err != nil {
		t.Fatal(err)
	}
	again.app(streamOut, "two", false)
	if records := numbered(t, again); len(records) != 2 || records[1].Seq != 2 {
		t.Errorf("%+v", records)
	}
}

func TestAFullDiskLosesLinesAndSaysHowMany(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// Without its writer, so that the test is the writer.
	l := &runLog{dir: dir, who: owner{os.Getuid(), os.Getgid()}}
	line := func(text string) []logLine { return []logLine{{at: time.Now(), stream: streamOut, text: text}} }
	l.writeBatch(line("before"))
	disk := l.file
	l.file = full
	for range 5 {
		l.writeBatch(line("lost"))
	}
	l.file = disk
	l.writeBatch(line("after"))
	l.writeBatch(line("more"))
	want := []string{"before", "5 lines lost: the log could not be written", "after", "more"}
	for i, r := range readRecords(t, dir) {
		if r.Seq != int64(i+1) || i >= len(want) || r.Text != want[i] {
			t.Errorf("line %d: %+v", i, r)
		}
	}
}

func TestWorkerLinesAreTakenApart(t *testing.T) {
	for line, want := range map[string][2]string{
		`{"timestamp": 1, "level": "log", "message": "hi"}`:   {streamOut, "hi"},
		`{"timestamp": 1, "level": "warn", "message": "oh"}`:  {streamErr, "oh"},
		`{"timestamp": 1, "level": "error", "message": "no"}`: {streamErr, "no"},
		`{"level": "error", "message": "the app's own JSON"}`: {streamOut, `{"level": "error", "message": "the app's own JSON"}`},
		`{broken`: {streamOut, "{broken"},
	} {
		if stream, text := workerLine(streamOut, line); stream != want[0] || text != want[1] {
			t.Errorf("%s: %s %q", line, stream, text)
		}
	}
}

func TestATailIsBoundedInLinesAndBytes(t *testing.T) {
	var lines, bytes tail
	for i := range 2 * tailLines {
		lines.add(itoa(i))
		bytes.add(strings.Repeat("€", 300))
	}
	if got := lines.get(); len(got) != tailLines || got[tailLines-1] != itoa(2*tailLines-1) {
		t.Errorf("%d lines, the last is %q", len(got), got[len(got)-1])
	}
	if got := strings.Join(bytes.get(), ""); len(got) > tailBytes || !utf8.ValidString(got) || len(got) < tailBytes/2 {
		t.Errorf("%d bytes", len(got))
	}
}

func TestOfALongLineTheTailKeepsBothEnds(t *testing.T) {
	var l tail
	l.add("TypeError: " + strings.Repeat("€", 100_000) + " the reason")
	got := l.get()[0]
	if !strings.HasPrefix(got, "TypeError: ") || !strings.HasSuffix(got, " the reason") || len(got) > tailLine+8 || !utf8.ValidString(got) {
		t.Errorf("%d bytes: %.40q", len(got), got)
	}
}

func TestAnAppsLastWordsAreKeptEvenInAFlood(t *testing.T) {
	t.Parallel()
	l := openTestLog(t)
	for i := range 2 * floodLines {
		l.app(streamOut, fmt.Sprintf("line %d", i), false)
	}
	l.app(streamErr, "the reason", false)
	l.lastWords()
	records := numbered(t, l)
	last := records[len(records)-1]
	if last.Text != "the reason" || last.Stream != streamErr {
		t.Errorf("%+v", last)
	}
	head := records[len(records)-floodLast-1]
	if head.Stream != streamSystem || head.Text != fmt.Sprintf("the last %d of them:", floodLast) {
		t.Errorf("%+v", head)
	}
}

func TestAWorkersFloodIsCountedWithoutBeingTakenApart(t *testing.T) {
	t.Parallel()
	l := openTestLog(t)
	if l.flooded(streamOut, "quiet", false) {
		t.Fatal("a first line is no flood")
	}
	for range 2 * floodLines {
		l.app(streamOut, "x", false)
	}
	if !l.flooded(streamErr, `{"timestamp": 1, "level": "error", "message": "one\ntwo"}`, false) {
		t.Fatal("not counted as a part of the flood")
	}
	l.lastWords()
	records := numbered(t, l)
	if one, two := records[len(records)-2], records[len(records)-1]; one.Text != "one" || two.Text != "two" || two.Stream != streamErr {
		t.Errorf("%+v %+v", one, two)
	}
	if got := l.tail.get(); got[len(got)-1] != "two" {
		t.Errorf("the tail ends with %q", got[len(got)-1])
	}
}

func TestWhatASandboxSaysFitsIntoAnAnswer(t *testing.T) {
	f := asFault(&fault{Code: "WorkerRejected", Message: strings.Repeat("<", 1<<20), Details: map[string]any{"log": strings.Repeat("x", 1<<20)}})
	if line := encode(reply{Error: f}); len(line) > 64<<10 { // of the MiB that an answer may have
		t.Errorf("%d bytes", len(line))
	}
	if again := asFault(f); again.Message != f.Message || f.Details != nil {
		t.Error("cut again")
	}
}
