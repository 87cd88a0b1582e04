package pod

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"vibed.dev/agent/supervise"
)

// domain stands before what is signed, so that nothing else that is ever signed with these keys is a claim.
const domain = "vibed claim 1\n"

// addressee is the pod that something is signed for, and how long that is good.
type addressee struct {
	PodUID    string `json:"pod_uid"`
	Namespace string `json:"namespace"`
	// Certificate is the SHA-256 of the one that the controller has seen: somebody between the two has another.
	Certificate string  `json:"certificate_sha256"`
	Expires     float64 `json:"expires"` // unix seconds
}

// document is a claim: the controller's word that this pod is one claim's, and by which token that is known from then on.
type document struct {
	addressee
	Claim       string `json:"claim"`
	TokenSHA256 string `json:"token_sha256"`
}

// ownership is whose this pod is.
type ownership struct {
	keys                        []ed25519.PublicKey
	pod, namespace, certificate string

	mu      sync.Mutex
	claim   string
	token   []byte // its SHA-256, nil before the claim
	refused int64
}

// newOwnership reads the controllers' public keys: base64, separated by blanks or commas.
func newOwnership(keys, pod, namespace, certificate string) (*ownership, error) {
	o := &ownership{pod: pod, namespace: namespace, certificate: certificate}
	for _, text := range strings.FieldsFunc(keys, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
		key, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("VIBED_CLAIM_KEYS: %q is no Ed25519 key in base64", short(text))
		}
		o.keys = append(o.keys, key)
	}
	if len(o.keys) == 0 || pod == "" || namespace == "" {
		return nil, errors.New("VIBED_CLAIM_KEYS, VIBED_POD_UID and VIBED_POD_NAMESPACE are required: without them nobody could claim this pod")
	}
	return o, nil
}

// open is what a controller has signed, as what domain says it is.
func (o *ownership) open(domain, text string) ([]byte, error) {
	payload, signature, ok := strings.Cut(text, ".")
	said, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil || !ok {
		return nil, errors.New("nothing is signed")
	}
	by, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		return nil, errors.New("nothing is signed")
	}
	for _, key := range o.keys {
		if ed25519.Verify(key, append([]byte(domain), said...), by) {
			return said, nil
		}
	}
	return nil, errors.New("none of the known keys has signed it")
}

// concerns tells whether this pod is meant, and now.
func (o *ownership) concerns(to *addressee, now time.Time) error {
	switch {
	case to.PodUID != o.pod || to.Namespace != o.namespace:
		return errors.New("it is another pod's")
	case to.Certificate != o.certificate:
		return errors.New("whoever it was signed for has seen another certificate than this pod's: somebody is between the two")
	case float64(now.UnixMicro())/1e6 > to.Expires:
		return errors.New("it has expired")
	}
	return nil
}

// read checks what can be checked of a document without regard to who has claimed the pod.
func (o *ownership) read(text string, now time.Time) (*document, error) {
	said, err := o.open(domain, text)
	if err != nil {
		return nil, err
	}
	var d document
	if err := json.Unmarshal(said, &d); err != nil {
		return nil, errors.New("what is signed is not a claim")
	}
	if err := o.concerns(&d.addressee, now); err != nil {
		return &d, err
	}
	if token, err := hex.DecodeString(d.TokenSHA256); err != nil || len(token) != sha256.Size || d.Claim == "" {
		return &d, errors.New("it names no claim, or no token")
	}
	return &d, nil
}

// take makes the pod the claim's that a document is about, once ever; the same claim may come again.
func (o *ownership) take(text string, now time.Time) error {
	d, err := o.read(text, now)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.refused++
		return supervise.Refusal("ClaimRefused", "the claim is refused: %v", err)
	}
	token, _ := hex.DecodeString(d.TokenSHA256)
	if o.token != nil && (o.claim != d.Claim || subtle.ConstantTimeCompare(o.token, token) != 1) {
		o.refused++
		return supervise.Refusal("AlreadyClaimed", "this pod was claimed before, by %s", short(o.claim))
	}
	o.claim, o.token = d.Claim, token
	return nil
}

// attach lets in who has the token of the claim.
func (o *ownership) attach(token string) error {
	sum := sha256.Sum256([]byte(token))
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.token == nil:
		o.refused++
		return supervise.Refusal("NotClaimed", "nobody has claimed this pod")
	case subtle.ConstantTimeCompare(o.token, sum[:]) != 1:
		o.refused++
		return supervise.Refusal("WrongToken", "this is not the token of the claim that this pod has")
	}
	return nil
}

// refuse counts who did not even try.
func (o *ownership) refuse() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refused++
}

func (o *ownership) taken() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.token != nil
}

func (o *ownership) refusals() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.refused
}
