"""The HTTP stack under the client: connections, and what wraps each exchange."""
