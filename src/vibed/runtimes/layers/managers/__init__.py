"""Node's package managers: how each is told to resolve and to install, and what its words mean."""
