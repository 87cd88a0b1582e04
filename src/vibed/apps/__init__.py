"""What an app is: its id, spec, status and versions, and the store that keeps them."""
