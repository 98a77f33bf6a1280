"""Protected resources: the tokens that a server accepts, and its metadata (RFC 9728)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs
import msgspec

from trioxport._diagnostics.validators import FUNCTION, TEXT, WORDS
from trioxport.auth import Verify
from trioxport.auth.verified import IssuedTokens
from trioxport.errors import UsageError
from trioxport.transports._access.scopes import OFFLINE_ACCESS, RequiredScopes

if TYPE_CHECKING:
    from trioxport.auth.verification.proofs import DPoP

_OWN_MEMBERS: Final = frozenset(
    {
        "resource",
        "authorization_servers",
        "bearer_methods_supported",
        "scopes_supported",
        "dpop_signing_alg_values_supported",
        "dpop_bound_access_tokens_required",
    }
)


@attrs.frozen
class ProtectedResource:
    """A server that answers only requests with a valid access token.

    Args:
        verify: Verifies a token, and returns its principal or a ``VerifiedToken``: a
            :class:`~trioxport.auth.verification.JWTVerifier`, an
            :class:`~trioxport.auth.verification.IntrospectionVerifier`, or an async function.
        authorization_servers: URLs of the servers that issue tokens, published as the metadata of RFC 9728; by default
            those that ``verify`` knows. Without any there is no metadata.
        scopes: The scopes that every token needs, published likewise. They are checked if ``verify`` returns a
            ``VerifiedToken``; otherwise that is its task.
        resource: The URL under which clients know this server; by default the audience that ``verify`` knows, or else
            the URL that clients ask for. A WebSocket server that listens alone publishes no metadata, and names its
            place only with this.
        required_scopes: The further scopes that messages need, by method, as ``"resources/read"``, and by method and
            name, as ``"tools/call:delete_file"``, which add up; or a function of the message. A message whose token
            lacks one reaches no handler: it is answered with 403 and all scopes that it needs.
        scope_hierarchy: The narrower scopes that a broader one implies, as ``{"files": ["files:read"]}``.
        dpop: The check of proofs for tokens that are bound to a key (RFC 9449). None refuses such tokens.
        metadata: Further members of the metadata, such as ``resource_name`` or ``resource_documentation``.

    Raises:
        UsageError: ``resource`` is no URL, or has a fragment; a scope is ``offline_access``; or ``metadata`` has a
            member that this library writes.
    """

    verify: Verify = attrs.field(validator=FUNCTION)
    authorization_servers: Sequence[str] = attrs.field(default=(), validator=WORDS, kw_only=True)
    scopes: Sequence[str] = attrs.field(default=(), validator=WORDS, kw_only=True)
    resource: str | None = attrs.field(default=None, validator=TEXT.or_none(), kw_only=True)
    required_scopes: RequiredScopes | None = attrs.field(default=None, kw_only=True)
    scope_hierarchy: Mapping[str, Sequence[str]] = attrs.field(factory=dict[str, Sequence[str]], kw_only=True)
    dpop: DPoP | None = attrs.field(default=None, kw_only=True)
    metadata: Mapping[str, Any] = attrs.field(factory=dict[str, Any], kw_only=True)

    def __attrs_post_init__(self) -> None:
        verify: object = self.verify
        if isinstance(verify, IssuedTokens):
            if not self.authorization_servers:
                object.__setattr__(self, "authorization_servers", verify.authorization_servers)
            if self.resource is None:
                object.__setattr__(self, "resource", verify.resource)
        if self.resource is not None:
            _check_resource(self.resource)
        if OFFLINE_ACCESS in self.scopes:
            raise UsageError(f"{OFFLINE_ACCESS} is no scope of a resource", hint="Clients ask for it by themselves")
        if own := sorted(_OWN_MEMBERS & self.metadata.keys()):
            raise UsageError(f"metadata has {', '.join(own)}, which other arguments set")

    def document(self, url: str) -> bytes:
        """The metadata in JSON, which every client may read (RFC 9728, section 2).

        Args:
            url: The URL of the resource.
        """
        members: dict[str, Any] = {
            **self.metadata,
            "resource": url,
            "authorization_servers": list(self.authorization_servers),
            "bearer_methods_supported": ["header"],
        }
        if self.scopes:
            members["scopes_supported"] = list(self.scopes)
        if self.dpop is not None:
            members["dpop_signing_alg_values_supported"] = list(self.dpop.algorithms)
            members["dpop_bound_access_tokens_required"] = self.dpop.required
        return msgspec.json.encode(members)


def _check_resource(url: str) -> None:
    parts = urlsplit(url)
    if not parts.scheme or not parts.netloc or parts.fragment:
        raise UsageError(
            "the resource is the URL of this server, without a fragment (RFC 8707, section 2)",
            hint='Write it as clients do, as "https://mcp.example.com/mcp"',
        )


def protected_resource(given: ProtectedResource | Verify | None) -> ProtectedResource | None:
    """The converter of the option ``verify``: a verifier stands for a resource without further options."""
    return given if given is None or isinstance(given, ProtectedResource) else ProtectedResource(given)
