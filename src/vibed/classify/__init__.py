"""Classify: from an archive's table to how it runs, and why."""
