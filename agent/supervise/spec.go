package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// The kinds of sandboxes: with vibed-agent inside, or a worker that takes its sockets as descriptors.
const (
	kindAgent  = "agent"
	kindWorker = "worker"
)

// owner is whom a file is given to.
type owner struct {
	UID int `json:"uid"`
	GID int `json:"gid"`
}

// spec is DIR/spec.json, as the contract has it.
type spec struct {
	ID             string          `json:"id"`
	Driver         string          `json:"driver"`
	Template       string          `json:"template"`
	TemplateDigest string          `json:"template_digest"`
	Kind           string          `json:"kind"`
	Command        []string        `json:"command"`
	Confine        json.RawMessage `json:"confine"`
	Sockets        struct {
		HTTP  string `json:"http"`
		Admin string `json:"admin"`
	} `json:"sockets"`
	AgentSocket  string     `json:"agent_socket"`
	AppSocket    string     `json:"app_socket"`
	Cleanup      [][]string `json:"cleanup"`
	CgroupProcs  []string   `json:"cgroup_procs"`
	CgroupOOM    string     `json:"cgroup_oom"`
	BootTimeoutS float64    `json:"boot_timeout_s"`
	LogOwner     owner      `json:"log_owner"`
	SocketOwner  owner      `json:"socket_owner"`
}

func loadSpec(path string) (*spec, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := readSpec(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func readSpec(data []byte) (*spec, error) {
	s := &spec{BootTimeoutS: 20}
	err := json.Unmarshal(data, s)
	switch {
	case err != nil:
	case s.ID == "" || len(s.Command) == 0:
		err = errors.New("id and command are required")
	case s.Kind == kindAgent && (s.AgentSocket == "" || s.AppSocket == ""):
		err = errors.New("kind agent needs agent_socket and app_socket")
	case s.Kind == kindWorker && (s.Sockets.HTTP == "" || s.Sockets.Admin == ""):
		err = errors.New("kind worker needs sockets.http and sockets.admin")
	case s.Kind != kindAgent && s.Kind != kindWorker:
		err = fmt.Errorf("kind %q is neither agent nor worker", s.Kind)
	}
	if err != nil {
		return nil, err
	}
	if string(s.Confine) == "null" {
		s.Confine = nil
	}
	return s, nil
}
