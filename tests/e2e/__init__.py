"""The whole of vibeD with the real programs: what a user gets, seen from outside."""
