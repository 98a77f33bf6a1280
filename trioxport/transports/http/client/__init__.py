"""The client's side of Streamable HTTP and of HTTP+SSE."""
