"""How a name reaches an app: links and markers that Caddy looks at, and the activator for names that lead nowhere."""
