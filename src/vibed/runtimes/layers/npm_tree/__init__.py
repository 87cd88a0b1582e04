"""`node_modules` made from a lock of npm's without npm."""
