"""The conversation with a server: its era, the negotiation, and a list of what it offers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import attrs
import trio

from trioxport._version import __version__
from trioxport.abc import CONNECT_TIMEOUT, Era, Layer
from trioxport.diagnosis.doctor.findings import ServerFindings
from trioxport.errors import AuthenticationError, TransportError
from trioxport.opening import open_transport
from trioxport.peer import Client, open_client
from trioxport.protocol import JSONRPCError
from trioxport.targets import Target

CLIENT_INFO: Final = {"name": "trioxport-doctor", "version": __version__}
STEPS: Final = ("negotiation", "listing")
MAX_NAMES: Final = 5
"""Names of tools and the like that a finding shows."""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


@attrs.frozen
class ConversationOptions:
    """The options of the conversation.

    Args:
        timeout: Seconds for connecting and negotiating, and for each answer.
        era: The era, if it is not to be negotiated.
        allow_plaintext: Whether unencrypted traffic may leave this machine.
    """

    timeout: float = 60.0
    era: Era | None = None
    allow_plaintext: bool = False


async def check_conversation(
    target: Target, options: ConversationOptions, findings: ServerFindings, layers: Sequence[Layer] = ()
) -> TransportError | None:
    """Converse with a server; returns the failure to connect or to negotiate, which is a finding too."""
    findings.begin()
    is_open = False
    with trio.CancelScope() as patience:
        try:
            async with (
                open_transport(
                    target,
                    layers=layers,
                    allow_plaintext=options.allow_plaintext,
                    connect_timeout=min(CONNECT_TIMEOUT, options.timeout),
                ) as connection,
                open_client(connection, client_info=CLIENT_INFO, era=options.era, timeout=options.timeout) as client,
            ):
                is_open = True
                _describe(client, findings)
                await _check_listing(client, findings)
        except JSONRPCError as error:
            findings.fail("listing" if is_open else "negotiation", error)
        except TransportError as error:
            patience.cancel()  # a server that is silent is not waited for
            step = "authorization" if isinstance(error, AuthenticationError) else "negotiation"
            findings.fail("closing" if is_open else step, error)
            if not is_open:
                findings.skip(STEPS[step == "negotiation" :], "the server cannot be talked to")
                return error
        else:
            return None
    if not is_open:
        findings.skip(STEPS[1:], "the server cannot be talked to")
    return None


def _describe(client: Client, findings: ServerFindings) -> None:
    if findings.demands_credentials:
        findings.add("authorization", "ok", "the server accepts the given credentials")
    server = client.server
    name = server.server_info.get("name")
    who = f"{name} {server.server_info.get('version', '')}".strip() if name else "a server without a name"
    text = f"{who} speaks {server.protocol_version} ({server.era} era)"
    if name:
        findings.add("negotiation", "ok", text, timed=True)
    else:
        findings.add("negotiation", "warning", text, "Give the server a name and a version", timed=True)


async def _check_listing(client: Client, findings: ServerFindings) -> None:
    findings.begin()
    lists: dict[str, Callable[[], Awaitable[Sequence[_Named]]]] = {
        "tools": client.list_tools,
        "prompts": client.list_prompts,
        "resources": client.list_resources,
    }
    offered = [kind for kind in lists if kind in client.server.capabilities]
    texts: list[str] = []
    doubles: list[str] = []
    for kind in offered:
        try:
            names = [each.name for each in await lists[kind]()]
        except (TransportError, JSONRPCError) as error:
            findings.fail("listing", error)
            return
        doubles += sorted({name for name in names if names.count(name) > 1})
        texts.append(_counted(kind, names))
    if not offered:
        remedy = "Check that the server registers its tools before it starts"
        findings.add("listing", "warning", "the server offers no tools, prompts or resources", remedy)
    elif doubles:
        remedy = "Give each a name of its own: clients find only one of them"
        findings.add("listing", "warning", f"{'; '.join(texts)}; names that stand twice: {_some(doubles)}", remedy)
    else:
        findings.add("listing", "ok", "; ".join(texts), timed=True)


def _counted(kind: str, names: Sequence[str]) -> str:
    return f"{len(names)} {kind}: {_some(names)}" if names else f"no {kind}"


def _some(names: Sequence[Any]) -> str:
    more = ", ..." if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
