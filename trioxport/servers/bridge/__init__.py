"""Bridges: any transport exposed as any other, for clients and servers of either era."""

from trioxport.servers.bridge.bridge import Bridge, Sharing, open_bridge, serve_bridge

__all__ = ["Bridge", "Sharing", "open_bridge", "serve_bridge"]
