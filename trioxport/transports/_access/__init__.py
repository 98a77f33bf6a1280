"""The access policy of HTTP and WebSocket servers: hosts, origins, bearer tokens, rates and trusted proxies."""
