"""What apps need beside their template: read-only layers of installed packages, made in builder sandboxes."""
