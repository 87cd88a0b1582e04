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

// asFault gives an unexpected error the code Internal.
func asFault(err error) *fault {
	var f *fault
	if errors.As(err, &f) {
		return f
	}
	return faultf("Internal", "%v", err)
}
