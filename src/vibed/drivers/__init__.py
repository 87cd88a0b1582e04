"""What makes sandboxes of one kind: one module or folder a driver, and what the general ones share."""
