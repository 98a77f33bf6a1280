"""Many servers at once: named upstreams, bridges between any two transports, and translation between the eras."""

from trioxport.servers.bridge import Bridge, Sharing, open_bridge, serve_bridge
from trioxport.servers.group import Servers, ServerTool, open_servers
from trioxport.servers.translation import AsLegacyServer, AsModernServer
from trioxport.servers.upstream import Upstream, UpstreamState

__all__ = [
    "AsLegacyServer",
    "AsModernServer",
    "Bridge",
    "ServerTool",
    "Servers",
    "Sharing",
    "Upstream",
    "UpstreamState",
    "open_bridge",
    "open_servers",
    "serve_bridge",
]
