"""What the extras of this distribution install, for errors that say what is missing."""

from __future__ import annotations

from typing import Final

REQUIREMENTS: Final = {
    "brotli": "brotli>=1.2",
    "http2": "h2>=4.2",
    "mcp": "mcp>=2.3",
    "otel": "opentelemetry-api>=1.31",
    "validation": "jsonschema-rs>=0.60",
    "zstd": "backports.zstd>=1.0",
}


def install_hint(extra: str) -> str:
    """How to install what the extra brings, by its own name, which does not need a release of this distribution."""
    return f"Install it: pip install '{REQUIREMENTS[extra]}', which is what the extra {extra} of trioxport brings"
