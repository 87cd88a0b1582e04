"""Sources: reading archives safely, keeping them, and making them."""
