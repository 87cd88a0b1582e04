"""How a name reaches an app: markers that Caddy reads on each request, and the activator for names that have none."""
