"""The metadata of an authorization server, as far as a resource server needs it: where its keys are.

RFC 8414, OpenID Connect Discovery 1.0; specification 2026-07-28, basic/authorization/authorization-server-discovery.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from trioxport._diagnostics.redaction import redact_url
from trioxport.auth.verification.documents import DocumentSource, is_safe_url
from trioxport.auth.verified import VerificationUnavailable

OAUTH: Final = "/.well-known/oauth-authorization-server"
OPENID: Final = "/.well-known/openid-configuration"


def metadata_urls(issuer: str) -> Iterator[str]:
    """The URLs at which the metadata of an issuer may be, in the order of the specification."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    yield origin + OAUTH + path
    yield origin + OPENID + path
    if path:
        yield origin + path + OPENID


async def discover_keys(issuer: str, source: DocumentSource) -> str:
    """The ``jwks_uri`` of an issuer. Raises ``VerificationUnavailable`` if its metadata cannot be used.

    A document that names another issuer is not used (RFC 8414, section 3.3), nor is a ``jwks_uri`` without encryption.
    """
    problems: list[str] = []
    for url in metadata_urls(issuer):
        document = await source.get(url)
        if document.status != 200:
            problems.append(f"{redact_url(url)} answers {document.status}")
        elif document.members.get("issuer") != issuer:
            problems.append(f"{redact_url(url)} is the metadata of another issuer")
        else:
            uri = document.members.get("jwks_uri")
            if isinstance(uri, str) and is_safe_url(uri) and _is_as_safe(uri, issuer):
                return uri
            problems.append(f"{redact_url(url)} names no jwks_uri over https")
    raise VerificationUnavailable(f"the metadata of the issuer has not been found: {'; '.join(problems)}")


def _is_as_safe(uri: str, issuer: str) -> bool:
    """Whether a URL without encryption comes from an issuer without it, which is on this machine."""
    return urlsplit(uri).scheme == "https" or urlsplit(issuer).scheme == "http"
