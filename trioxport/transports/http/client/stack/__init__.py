"""The HTTP stack under the client: a connection pool or httpx, and the wrappers of each request."""
