module vibed.dev/agent

go 1.24
