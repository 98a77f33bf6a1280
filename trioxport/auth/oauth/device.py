"""The device authorization grant (RFC 8628): consent on another device, for machines without a browser."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import trio

from trioxport.auth.addresses import fault_of, shown_url
from trioxport.auth.oauth.clients import OAuthClient
from trioxport.auth.oauth.discovery import Discovery
from trioxport.auth.oauth.grants import GrantContext, base_form
from trioxport.auth.oauth.metadata import AuthorizationServer
from trioxport.auth.oauth.steps import Steps, json_object, refusal
from trioxport.auth.oauth.token_requests import DPoPState, TokenSet, authenticated_post, token_request
from trioxport.auth.secret import Secret
from trioxport.errors import InteractionRequired, OAuthError

DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
DEVICE_STEP: Final = "device authorization"
SECTION: Final = "RFC 8628, section 3.2"
INTERVAL_SECONDS: Final = 5.0
SLOWER_SECONDS: Final = 5.0
MAX_INTERVAL: Final = 120.0
MAX_LIFE: Final = 1800.0


@attrs.frozen
class DeviceCode:
    """The answer of the device authorization endpoint: the page, and the code to enter there.

    Args:
        verification_uri: The page.
        user_code: The code to enter.
        verification_uri_complete: The page with the code, for a QR code, if the server has one.
        expires_in: Seconds until the code expires.
    """

    verification_uri: str
    user_code: str
    verification_uri_complete: str | None
    expires_in: float
    interval: float
    device_code: Secret


@attrs.frozen
class DeviceAuthorization:
    """Consent on another device: the person opens a page there and enters a code (RFC 8628).

    Args:
        show: An async function that shows the page and the code.
    """

    show: Callable[[DeviceCode], Awaitable[None]]
    client: OAuthClient | None = None
    asks: bool = attrs.field(default=True, init=False)

    async def obtain(self, context: GrantContext) -> TokenSet:
        server = context.discovery.server
        client = await context.client((), (DEVICE_CODE, "refresh_token"))
        form = base_form(context, DEVICE_CODE)
        del form["grant_type"]
        code = await context.run(_begin(server, client, form))
        with trio.move_on_after(code.expires_in):
            await self.show(code)
            return await self._poll(context, client, code)
        reason = f"the code was not entered within {code.expires_in:g} s"
        raise InteractionRequired(reason, url=code.verification_uri, issuer=server.issuer)

    async def _poll(self, context: GrantContext, client: OAuthClient, code: DeviceCode) -> TokenSet:
        """Ask until the person has decided, no more often than the server allows (RFC 8628, section 3.5)."""
        interval = code.interval
        while True:
            await trio.sleep(interval)
            try:
                return await context.run(_ask(context.discovery, client, code, context.dpop))
            except OAuthError as error:
                if error.code == "expired_token":
                    reason = "the code has expired before it was entered"
                    raise InteractionRequired(reason, url=code.verification_uri, issuer=error.issuer) from error
                if error.code == "slow_down" or (error.retryable and error.code is None):
                    interval = min(interval + SLOWER_SECONDS, MAX_INTERVAL)
                elif error.code != "authorization_pending":
                    raise


def _begin(server: AuthorizationServer, client: OAuthClient, form: dict[str, str]) -> Steps[DeviceCode]:
    if server.device_authorization_endpoint is None:
        reason = "its metadata lacks device_authorization_endpoint"
        raise OAuthError(reason, step=DEVICE_STEP, issuer=server.issuer, section="RFC 8628, section 4")
    response = yield from authenticated_post(server, server.device_authorization_endpoint, client, form)
    if response.status != 200:
        error = refusal(response, DEVICE_STEP, section="RFC 8628, section 3.1")
        error.issuer = server.issuer
        raise error
    try:
        return _code_in(json_object(response) or {})
    except ValueError as fault:
        raise OAuthError(str(fault), step=DEVICE_STEP, issuer=server.issuer, section=SECTION) from None


def _code_in(found: dict[str, Any]) -> DeviceCode:
    code, user_code, uri = (found.get(name) for name in ("device_code", "user_code", "verification_uri"))
    if not (isinstance(code, str) and code and isinstance(user_code, str) and isinstance(uri, str)):
        raise ValueError("the response lacks device_code, user_code or verification_uri")
    complete = found.get("verification_uri_complete")
    for each in (uri, complete):
        if isinstance(each, str) and (fault := fault_of(each)):
            raise ValueError(f"the response names the page {shown_url(each)}: {fault}")
    if not user_code.isprintable() or len(user_code) > 64:
        raise ValueError("the response holds a user_code that cannot be shown")
    return DeviceCode(
        uri,
        user_code,
        complete if isinstance(complete, str) else None,
        _between(found.get("expires_in"), 1.0, MAX_LIFE, MAX_LIFE),
        _between(found.get("interval"), 1.0, MAX_INTERVAL, INTERVAL_SECONDS),
        Secret(code),
    )


def _between(found: object, least: float, most: float, default: float) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return default
    return float(min(max(found, least), most))


def _ask(discovery: Discovery, client: OAuthClient, code: DeviceCode, dpop: DPoPState | None) -> Steps[TokenSet]:
    form = {
        "grant_type": DEVICE_CODE,
        "device_code": code.device_code.reveal(),
        "resource": discovery.resource,
    }
    return token_request(discovery.server, client, form, dpop=dpop, step=DEVICE_STEP)
