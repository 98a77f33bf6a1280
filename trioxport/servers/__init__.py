"""Many servers at once: named upstreams, each in isolation from the others; and bridges between any two transports."""

from trioxport.servers.bridge import Bridge, open_bridge, serve_bridge
from trioxport.servers.group import Servers, ServerTool, open_servers
from trioxport.servers.upstream import Upstream, UpstreamState

__all__ = [
    "Bridge",
    "ServerTool",
    "Servers",
    "Upstream",
    "UpstreamState",
    "open_bridge",
    "open_servers",
    "serve_bridge",
]
