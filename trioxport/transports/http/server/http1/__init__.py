"""The HTTP/1.1 server that runs the endpoint on sockets of its own."""
