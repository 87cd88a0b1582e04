package supervise

import (
	"errors"
	"fmt"
)

// fault is an error with a code of the contract.
type fault struct {
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Details map[string]any `json:"details,omitempty"`
}

func (f *fault) Error() string { return f.Code + ": " + f.Message }

func faultf(code, format string, args ...any) *fault {
	return &fault{Code: code, Message: fmt.Sprintf(format, args...)}
}

const (
	maxMessage = 4 << 10
	maxDetails = 256 << 10 // a tail whose every byte needs six in JSON
)

// asFault makes an error an answer: one without a code is Internal, and what came out of the sandbox is cut to a size
// that fits into the line of an answer.
func asFault(err error) *fault {
	var f *fault
	if !errors.As(err, &f) {
		f = faultf("Internal", "%v", err)
	}
	cut := *f
	if len(cut.Message) > maxMessage {
		cut.Message = cut.Message[:runeCut(cut.Message, maxMessage-len(" …"))] + " …"
	}
	if len(encode(cut.Details)) > maxDetails {
		cut.Details = nil
	}
	return &cut
}
