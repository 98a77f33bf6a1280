"""The requirements behind the extras of this distribution, for errors that name a missing one."""

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
    """A hint to install the extra's requirement by its own name, which does not need a release of this distribution."""
    return f"Install it: pip install '{REQUIREMENTS[extra]}', which is what the extra {extra} of trioxport brings"
