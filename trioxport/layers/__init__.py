"""Layers: configuration that wraps a connection's channels. One module each, all in the same order: configuration,
send side, receive side."""

from trioxport._bucket import Rate, TokenBucket
from trioxport.layers._circuit import CircuitState, FailureRate
from trioxport.layers.circuit_breaker import CircuitBreaker, counts_as_failure
from trioxport.layers.compression import Compression
from trioxport.layers.logging import Logging
from trioxport.layers.rate_limit import RateLimit
from trioxport.layers.signing import Signing
from trioxport.layers.tap import Tap
from trioxport.layers.tracing import Tracing

__all__ = [
    "CircuitBreaker",
    "CircuitState",
    "Compression",
    "FailureRate",
    "Logging",
    "Rate",
    "RateLimit",
    "Signing",
    "Tap",
    "TokenBucket",
    "Tracing",
    "counts_as_failure",
]
