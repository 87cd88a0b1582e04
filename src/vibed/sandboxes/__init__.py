"""Places that run one version of one app, once: the Driver port, its drivers, warm pools, templates."""
