"""Many servers at once: named upstreams, each in isolation from the others."""

from trioxport.servers.group import Servers, ServerTool, open_servers
from trioxport.servers.upstream import Upstream, UpstreamState

__all__ = ["ServerTool", "Servers", "Upstream", "UpstreamState", "open_servers"]
