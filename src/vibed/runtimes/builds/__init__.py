"""Builds: what an app's own build script makes of its source, kept by what decides it."""
