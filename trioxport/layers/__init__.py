"""Layers: configuration that wraps a connection's channels. One module each, all in the same order: configuration,
send side, receive side."""

from trioxport._core.backoff import Backoff
from trioxport._core.token_bucket import Rate, TokenBucket
from trioxport.layers._attempts import is_read_only, is_safe_to_repeat
from trioxport.layers._circuit import CircuitState, FailureRate
from trioxport.layers._latency import Latency
from trioxport.layers.batching import Batching
from trioxport.layers.circuit_breaker import CircuitBreaker, counts_as_failure
from trioxport.layers.compression import Compression
from trioxport.layers.encryption import Encryption
from trioxport.layers.logging import Logging
from trioxport.layers.metrics import Metrics, MetricsSnapshot, OperationSummary
from trioxport.layers.prometheus import prometheus_text
from trioxport.layers.rate_limit import RateLimit
from trioxport.layers.retry import Retry
from trioxport.layers.signing import Signing
from trioxport.layers.tap import Tap
from trioxport.layers.timeout import Timeout
from trioxport.layers.tracing import Tracing
from trioxport.layers.validation import Validation

__all__ = [
    "Backoff",
    "Batching",
    "CircuitBreaker",
    "CircuitState",
    "Compression",
    "Encryption",
    "FailureRate",
    "Latency",
    "Logging",
    "Metrics",
    "MetricsSnapshot",
    "OperationSummary",
    "Rate",
    "RateLimit",
    "Retry",
    "Signing",
    "Tap",
    "Timeout",
    "TokenBucket",
    "Tracing",
    "Validation",
    "counts_as_failure",
    "is_read_only",
    "is_safe_to_repeat",
    "prometheus_text",
]
