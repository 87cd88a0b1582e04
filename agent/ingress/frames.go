package ingress

import "encoding/binary"

// frames follows the WebSocket frames (RFC 6455 section 5.2) of one direction of a connection, without looking at what is
// in them: to know where one ends, because only there another can be put in.
type frames struct {
	head     [14]byte
	have     int
	payload  uint64
	closing  bool
	closed   bool
	inAFrame bool
}

// next returns how many bytes of p belong to the frame that is under way or begins: all of p when it does not end there.
func (f *frames) next(p []byte) int {
	used := 0
	for !f.inAFrame {
		if used == len(p) {
			return used
		}
		f.head[f.have] = p[used]
		f.have++
		used++
		if f.have >= 2 && f.have == f.headLength() {
			f.payload = f.payloadLength()
			f.closing = f.head[0]&0x0f == 8
			f.inAFrame = true
		}
	}
	rest := uint64(len(p) - used)
	if rest < f.payload {
		f.payload -= rest
		return len(p)
	}
	used += int(f.payload)
	f.closed = f.closed || f.closing
	f.have, f.payload, f.inAFrame = 0, 0, false
	return used
}

// follow takes all of p.
func (f *frames) follow(p []byte) {
	for len(p) > 0 {
		p = p[f.next(p):]
	}
}

// atBoundary tells that the next byte begins a frame.
func (f *frames) atBoundary() bool { return f.have == 0 && !f.inAFrame }

func (f *frames) headLength() int {
	n := 2
	switch f.head[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if f.head[1]&0x80 != 0 {
		n += 4
	}
	return n
}

func (f *frames) payloadLength() uint64 {
	switch n := f.head[1] & 0x7f; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		return binary.BigEndian.Uint64(f.head[2:])
	default:
		return uint64(n)
	}
}

// restartFrame is an unmasked close frame with code 1012, "service restart": clients reconnect after it.
var restartFrame = []byte{0x88, 17, 0x03, 0xf4, 'S', 'e', 'r', 'v', 'i', 'c', 'e', ' ', 'r', 'e', 's', 't', 'a', 'r', 't'}
