"""The HTTP/1.1 server: an endpoint on sockets of its own."""
