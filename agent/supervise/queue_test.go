package supervise

import (
	"testing"
	"time"
)

func TestEmptyLinesDoNotPileUpWhileTheDiskStalls(t *testing.T) {
	l := &runLog{wake: make(chan struct{}, 1)} // its writer is in the kernel
	for second := range int64(600) {
		for range floodLines {
			l.add(logLine{at: time.Unix(1e9+second, 0), stream: streamOut})
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if held := len(l.queue) * 88; held > 4*queueBytes {
		t.Errorf("after ten minutes %d lines wait, in %d MiB", len(l.queue), held>>20)
	}
}
