"""Hints of errors: a similar word, the scheme that a target lacks, and the package to install."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_ADDRESS: Final = r"(?s)(?P<host>\[[0-9A-Fa-f:.]+\]|[\w.-]+):(?P<port>\d+)(?P<path>/.*)?"
_SITE: Final = r"[\w-]+(\.[\w-]+)+/\S*"
_LOCAL: Final = ("localhost", "[::1]", "127.")


def close_to(unknown: str, known: Iterable[str]) -> str | None:
    """The known word that is most similar to ``unknown``, or None."""
    import difflib

    return next(iter(difflib.get_close_matches(unknown, list(known), n=1)), None)


def whole_target(target: str) -> str | None:
    """A hint with the scheme that a target probably lacks, or None.

    Args:
        target: The target, redacted.
    """
    if found := re.fullmatch(_ADDRESS, target):
        web = "http" if found["host"].startswith(_LOCAL) else "https"
        stream = f"tcp://{found['host']}:{found['port']}"
        if found["path"]:
            return f"Did you mean {web}://{target}, or {stream}?"
        return f"Did you mean {stream}, or {web}://{target}/mcp?"
    if target.startswith(("/", "./", "../")) and " " not in target:
        return f"Did you mean unix://{target}, or stdio:{target}?"
    if re.fullmatch(_SITE, target):
        return f"Did you mean https://{target}?"
    if " " in target:
        return f"A command to run is written stdio:{target}"
    return None


REQUIREMENTS: Final = {
    "brotli": ("brotli>=1.2",),
    "cli": ("click>=8.2", "prompt-toolkit>=3.0.50", "rich>=13.9", "watchfiles>=1.0"),
    "crypto": ("cryptography>=44",),
    "http2": ("h2>=4.4,<4.5",),
    "keychain": ("keyring>=25",),
    "mcp": ("mcp>=2.3",),
    "oauth": ("joserfc>=1.6",),
    "otel": ("opentelemetry-api>=1.31",),
    "redis": ("coredis>=6.9",),
    "validation": ("jsonschema-rs>=0.60",),
    "zstd": ("backports.zstd>=1.0",),
}


def install_hint(extra: str) -> str:
    """A hint to install the requirements of an extra by their own names, which works without a release of trioxport."""
    wanted = " ".join(f"'{requirement}'" for requirement in REQUIREMENTS[extra])
    return f"Install it: pip install {wanted}, which is what the extra {extra} of trioxport brings"
