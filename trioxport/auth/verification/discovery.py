"""The metadata of an authorization server, as far as a resource server needs it, and the keys that it names.

RFC 8414, OpenID Connect Discovery 1.0; specification 2026-07-28, basic/authorization/authorization-server-discovery.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from trioxport._diagnostics.redaction import redact_url
from trioxport.auth.addresses import fault_of, server_metadata_urls
from trioxport.auth.verification.documents import DocumentSource
from trioxport.auth.verified import VerificationUnavailable


async def discover_keys(issuer: str, source: DocumentSource) -> str:
    """The ``jwks_uri`` of an issuer. Raises ``VerificationUnavailable`` if its metadata cannot be used.

    A document that names another issuer is not used (RFC 8414, section 3.3), nor is a ``jwks_uri`` without encryption.
    """
    problems: list[str] = []
    for url in server_metadata_urls(issuer):
        document = await source.get(url)
        if document.status != 200:
            problems.append(f"{redact_url(url)} answers {document.status}")
        elif document.members.get("issuer") != issuer:
            problems.append(f"{redact_url(url)} is the metadata of another issuer")
        else:
            uri = document.members.get("jwks_uri")
            if isinstance(uri, str) and fault_of(uri) is None and _is_as_safe(uri, issuer):
                return uri
            problems.append(f"{redact_url(url)} names no jwks_uri over https")
    raise VerificationUnavailable(f"the metadata of the issuer has not been found: {'; '.join(problems)}")


def _is_as_safe(uri: str, issuer: str) -> bool:
    """Whether a URL without encryption comes from an issuer without it, which is on this machine."""
    return urlsplit(uri).scheme == "https" or urlsplit(issuer).scheme == "http"


async def fetch_keys(uri: str, source: DocumentSource) -> Mapping[str, Any]:
    """The JWK Set at a ``jwks_uri`` (RFC 7517, section 5). Raises ``VerificationUnavailable``."""
    document = await source.get(uri)
    if document.status != 200:
        raise VerificationUnavailable(f"the keys at {redact_url(uri)} are answered with {document.status}")
    return document.members
