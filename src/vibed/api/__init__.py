"""The HTTP API of vibeD: deploys, apps, logs, keys; and the process that serves it."""
