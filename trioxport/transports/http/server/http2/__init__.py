"""The HTTP/2 server: the requests of one connection, side by side, for the same endpoint."""
