"""``grpc://`` and ``grpcs://``: JSON-RPC messages in calls of gRPC, as a stream or one call for each request."""

from trioxport.transports._access.protected import ProtectedResource
from trioxport.transports._access.proxies import TrustedProxies
from trioxport.transports.grpc.health import ServingStatus
from trioxport.transports.grpc.target import Grpc

__all__ = ["Grpc", "ProtectedResource", "ServingStatus", "TrustedProxies"]
