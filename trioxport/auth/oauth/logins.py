"""Logins: the tokens for one MCP server, and what is needed to refresh them, as a store keeps them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import attrs
import cattrs
import msgspec

from trioxport.auth.oauth.clients import OAuthClient
from trioxport.auth.oauth.metadata import AuthorizationServer
from trioxport.auth.oauth.token_requests import TokenSet
from trioxport.auth.secret import Secret
from trioxport.errors import OAuthError

STORE_STEP: Final = "store of credentials"
FORMAT: Final = 1


def login_key(server: str) -> str:
    """The key of the login for an MCP server, by its canonical URL."""
    return f"login:{server}"


def client_key(issuer: str) -> str:
    """The key of the client that is registered at an authorization server."""
    return f"client:{issuer}"


@attrs.frozen
class Login:
    """The tokens of one client for one MCP server.

    Args:
        resource: The resource that they were issued for.
        server: The authorization server that issued them, and no other gets them.
        client: The client that they were issued to.
        access_token: The access token; None once it was refused and could not be refreshed.
        token_type: ``"bearer"`` or ``"dpop"``.
        expires_at: The time at which it expires, in seconds since 1970; None if that is unknown.
        issued_at: The time at which it was issued.
        refresh_token: The refresh token, if one was issued.
        scopes: The scopes that were granted.
        requested: The scopes that were asked for, of all requests so far.
        dpop_key: The private key that the tokens are bound to, in PEM.
    """

    resource: str
    server: AuthorizationServer
    client: OAuthClient
    access_token: Secret | None
    token_type: str = "bearer"
    expires_at: float | None = None
    issued_at: float = 0.0
    refresh_token: Secret | None = None
    scopes: tuple[str, ...] = ()
    requested: tuple[str, ...] = ()
    dpop_key: Secret | None = None

    @classmethod
    def of(
        cls,
        tokens: TokenSet,
        *,
        resource: str,
        server: AuthorizationServer,
        client: OAuthClient,
        requested: tuple[str, ...],
        dpop_key: Secret | None,
    ) -> Login:
        """The login of newly issued tokens."""
        login = cls(resource, server, client, None, requested=requested, scopes=requested, dpop_key=dpop_key)
        return login.renewed(tokens)

    def renewed(self, tokens: TokenSet) -> Login:
        """This login with the tokens of a response; a refresh token that is not replaced stays."""
        now = time.time()
        return attrs.evolve(
            self,
            access_token=tokens.access_token,
            token_type=tokens.token_type,
            issued_at=now,
            expires_at=None if tokens.expires_in is None else now + tokens.expires_in,
            refresh_token=tokens.refresh_token or self.refresh_token,
            scopes=self.scopes if tokens.scope is None else tuple(tokens.scope.split()),
        )

    def is_alive(self) -> bool:
        """Whether the access token is there and has not expired."""
        return self.access_token is not None and (self.expires_at is None or time.time() < self.expires_at)


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(omit_if_default=True)
    converter.register_unstructure_hook(Secret, Secret.reveal)
    converter.register_structure_hook(Secret, lambda value, _: Secret(_text(value)))
    converter.register_structure_hook(str, lambda value, _: _text(value))
    return converter


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


_CONVERTER: Final = _converter()


def to_text(kept: Login | OAuthClient) -> Secret:
    """A login or a client as JSON."""
    members: Mapping[str, Any] = _CONVERTER.unstructure(kept)
    return Secret(msgspec.json.encode({"format": FORMAT, **members}).decode())


def login_in(text: Secret | None) -> Login | None:
    """The login in the text of a store. Raises ``OAuthError``, which does not quote it."""
    return None if text is None else _structured(text, Login)


def client_in(text: Secret | None) -> OAuthClient | None:
    """The client in the text of a store. Raises ``OAuthError``, which does not quote it."""
    return None if text is None else _structured(text, OAuthClient)


def _structured(text: Secret, kind: type[Any]) -> Any:
    try:
        members = msgspec.json.decode(text.reveal())
        if members.pop("format") != FORMAT:
            raise ValueError
        return _CONVERTER.structure(members, kind)
    except (msgspec.DecodeError, cattrs.BaseValidationError, KeyError, TypeError, ValueError, AttributeError):
        hint = "Delete the entry with trioxport logout URL, and log in again"
        raise OAuthError(
            "an entry cannot be read: it is damaged or of another version", step=STORE_STEP, hint=hint
        ) from None
