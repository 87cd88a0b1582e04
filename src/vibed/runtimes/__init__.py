"""Templates as data and how they are built; the programs that vibeD installs for itself."""
