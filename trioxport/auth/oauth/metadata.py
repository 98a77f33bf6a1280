"""Metadata of protected resources (RFC 9728) and authorization servers (RFC 8414, OpenID Connect Discovery)."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import attrs

from trioxport.auth.addresses import covers, fault_of, shown_url
from trioxport.auth.oauth.steps import OAuthResponse, are_texts, json_object
from trioxport.errors import OAuthError

RESOURCE_STEP: Final = "protected resource metadata"
SERVER_STEP: Final = "authorization server metadata"
MAX_ITEMS: Final = 1000
"""Members of a list that are read."""

Found = TypeVar("Found")


class MetadataDocument:
    """A metadata document, and its members by their types. The errors name the member and the section it breaks."""

    def __init__(self, members: dict[str, Any], url: str, *, step: str, section: str) -> None:
        self._members = members
        self._url = url
        self._step = step
        self._section = section

    def fail(self, reason: str, *, section: str | None = None) -> OAuthError:
        """The error for a document that cannot be used."""
        text = f"the document at {shown_url(self._url)} {reason}"
        return OAuthError(text, step=self._step, section=section or self._section)

    def text(self, name: str) -> str | None:
        return self._member(name, str, "a text")

    def flag(self, name: str) -> bool:
        return self._member(name, bool, "true or false") or False

    def texts(self, name: str) -> tuple[str, ...] | None:
        """The texts of a list; None if it is absent."""
        found = self._members.get(name)
        if found is None:
            return None
        if not are_texts(found) or len(found) > MAX_ITEMS:
            raise self.fail(f"has a member {name} that is not a list of at most {MAX_ITEMS} texts")
        return tuple(found)

    def url(self, name: str) -> str | None:
        """The URL of an endpoint; None if it is absent."""
        found = self.text(name)
        fault = None if found is None else fault_of(found)
        if found is not None and fault:
            raise self.fail(f"names the {name} {shown_url(found)}: {fault}", section="RFC 9700, section 2.6")
        return found

    def needed(self, name: str, found: Found | None) -> Found:
        """A member that has to be there."""
        if found is None:
            raise self.fail(f"lacks {name}")
        return found

    def _member(self, name: str, kind: type[Found], what: str) -> Found | None:
        found = self._members.get(name)
        if found is None:
            return None
        if not isinstance(found, kind):
            raise self.fail(f"has a member {name} that is not {what}")
        return found


@attrs.frozen
class ResourceMetadata:
    """The metadata of a protected resource, an MCP server (RFC 9728, section 2).

    Args:
        resource: The identifier of the resource, as the server spells it.
        authorization_servers: The issuers of its tokens.
        scopes_supported: The scopes of basic use; None if it names none.
        dpop: Whether it takes tokens bound by DPoP.
    """

    resource: str
    authorization_servers: tuple[str, ...]
    scopes_supported: tuple[str, ...] | None = None
    dpop: bool = False

    @classmethod
    def parse(cls, members: dict[str, Any], url: str, server: str) -> ResourceMetadata:
        """The metadata in a document from ``url`` about ``server``. Raises ``OAuthError``."""
        document = MetadataDocument(members, url, step=RESOURCE_STEP, section="RFC 9728, section 2")
        resource = document.needed("resource", document.text("resource"))
        if fault := fault_of(resource):
            raise document.fail(f"names the resource {shown_url(resource)}: {fault}", section="RFC 9728, section 1.2")
        if not covers(resource, server):
            reason = f"is about the resource {shown_url(resource)}, not about this server"
            raise document.fail(reason, section="RFC 9728, section 3.3")
        servers = document.texts("authorization_servers")
        if not servers:
            section = "MCP 2026-07-28, authorization server location"
            raise document.fail("names no authorization_servers", section=section)
        for issuer in servers:
            check_issuer(document, issuer)
        return cls(
            resource=resource,
            authorization_servers=servers,
            scopes_supported=document.texts("scopes_supported"),
            dpop=document.flag("dpop_bound_access_tokens_required")
            or "ES256" in (document.texts("dpop_signing_alg_values_supported") or ()),
        )


@attrs.frozen
class AuthorizationServer:
    """The metadata of an authorization server (RFC 8414, section 2)."""

    issuer: str
    token_endpoint: str
    authorization_endpoint: str | None = None
    registration_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    par_endpoint: str | None = None
    par_required: bool = False
    scopes_supported: tuple[str, ...] = ()
    grant_types: tuple[str, ...] | None = None
    auth_methods: tuple[str, ...] | None = None
    challenge_methods: tuple[str, ...] | None = None
    iss_parameter: bool = False
    client_id_documents: bool = False
    dpop_algorithms: tuple[str, ...] = ()

    @classmethod
    def parse(cls, members: dict[str, Any], url: str, issuer: str) -> AuthorizationServer:
        """The metadata of ``issuer`` in a document from ``url``. Raises ``OAuthError``."""
        document = MetadataDocument(members, url, step=SERVER_STEP, section="RFC 8414, section 2")
        named = document.needed("issuer", document.text("issuer"))
        if named != issuer:
            reason = f"is about the issuer {shown_url(named)}, not {shown_url(issuer)}"
            raise document.fail(reason, section="RFC 8414, section 3.3")
        return cls(
            issuer=named,
            token_endpoint=document.needed("token_endpoint", document.url("token_endpoint")),
            authorization_endpoint=document.url("authorization_endpoint"),
            registration_endpoint=document.url("registration_endpoint"),
            device_authorization_endpoint=document.url("device_authorization_endpoint"),
            par_endpoint=document.url("pushed_authorization_request_endpoint"),
            par_required=document.flag("require_pushed_authorization_requests"),
            scopes_supported=document.texts("scopes_supported") or (),
            grant_types=document.texts("grant_types_supported"),
            auth_methods=document.texts("token_endpoint_auth_methods_supported"),
            challenge_methods=document.texts("code_challenge_methods_supported"),
            iss_parameter=document.flag("authorization_response_iss_parameter_supported"),
            client_id_documents=document.flag("client_id_metadata_document_supported"),
            dpop_algorithms=document.texts("dpop_signing_alg_values_supported") or (),
        )


def check_issuer(document: MetadataDocument, issuer: str) -> None:
    """Raise ``OAuthError`` for an issuer that is no issuer identifier (RFC 8414, section 2)."""
    fault = fault_of(issuer) or ("it has a query" if "?" in issuer else None)
    if fault:
        reason = f"names the authorization server {shown_url(issuer)}: {fault}"
        raise document.fail(reason, section="RFC 8414, section 2")


def document_in(response: OAuthResponse) -> dict[str, Any] | None:
    """The JSON object of a successful response; None for any other."""
    return json_object(response) if response.status == 200 else None
