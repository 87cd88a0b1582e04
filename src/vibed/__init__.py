"""vibeD: from the app an AI assistant just wrote to a live URL in seconds, in a governed sandbox."""

__version__ = "0.5.0"
