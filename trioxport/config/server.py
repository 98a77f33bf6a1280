"""A server of a configuration: a target with its layers, its policy and its timeouts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs

from trioxport._diagnostics.hints import close_to
from trioxport._layering import split_layers
from trioxport.abc import CLOSE_TIMEOUT, CONNECT_TIMEOUT, FrameChannels, Layer, Scope, Transport
from trioxport.config.problems import Problem
from trioxport.errors import UsageError
from trioxport.frames import Limits
from trioxport.transports.reconnecting import Reconnect


@attrs.frozen
class ConfiguredTarget:
    """A transport under a description that shows no secret of its configuration.

    Args:
        description: The description.
        transport: The transport; None for a server that is disabled.
        hidden: The texts that no error of its connections may show.
    """

    description: str
    transport: Transport | None = attrs.field(repr=False)
    hidden: Collection[str] = attrs.field(default=(), repr=False)

    def __str__(self) -> str:
        return self.description

    def __call__(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        if self.transport is None:
            raise UsageError("this server is disabled in its configuration", target=self.description)
        scope.hide(self.hidden)
        return self.transport(scope)


@attrs.frozen
class ServerConfig:
    """A server of a configuration, and a target: ``open_transport(config)`` applies all that it holds.

    Args:
        name: The name of the server.
        target: The target to connect to.
        layers: The layers of the configuration.
        reconnect: The policy by which a lost connection is opened again.
        limits: The limits of sizes and buffers.
        connect_timeout: Seconds to connect.
        close_timeout: Seconds to close.
        allow_plaintext: Whether an unencrypted connection may leave this machine.
        disabled: Whether the configuration has switched the server off; opening it is a ``UsageError``.
        notes: The settings of other programs that were left out.
    """

    name: str
    target: ConfiguredTarget
    layers: Sequence[Layer] = attrs.field(default=(), repr=lambda layers: str([type(each).__name__ for each in layers]))
    reconnect: Reconnect | None = None
    limits: Limits | None = None
    connect_timeout: float | None = None
    close_timeout: float | None = None
    allow_plaintext: bool = False
    disabled: bool = False
    notes: Sequence[Problem] = ()

    def __str__(self) -> str:
        return str(self.target)

    def __call__(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        return self.target(scope)

    def options(self, **given: Any) -> dict[str, Any]:
        """The options of ``open_transport``: ``given`` ones that differ from the default, and else the configured.

        The given layers are closest to the application within their level. Raises ``UsageError`` if the server is
        disabled.
        """
        if self.disabled:
            hint = f"Remove 'disabled' of the server {self.name!r}, or leave it out"
            raise UsageError("this server is disabled in its configuration", target=str(self), hint=hint)
        given["layers"] = _joined(given["layers"], self.layers)
        given["allow_plaintext"] = given["allow_plaintext"] or self.allow_plaintext
        defaults = {
            "reconnect": (None, self.reconnect),
            "limits": (Limits(), self.limits),
            "connect_timeout": (CONNECT_TIMEOUT, self.connect_timeout),
            "close_timeout": (CLOSE_TIMEOUT, self.close_timeout),
        }
        for name, (default, configured) in defaults.items():
            if configured is not None and given[name] == default:
                given[name] = configured
        return given


def _joined(given: Sequence[Layer], configured: Sequence[Layer]) -> Sequence[Layer]:
    """The given layers, then the configured, message layers before frame layers."""
    if not configured:
        return given
    own, added = split_layers(given), split_layers(configured)
    return [*own.messages, *added.messages, *own.frames, *added.frames]


class ServerConfigs(dict[str, ServerConfig]):
    """The servers of a configuration, by name.

    Attributes:
        notes: The settings of other programs that were left out, of all servers.
    """

    notes: Sequence[Problem] = ()

    def __missing__(self, name: str) -> ServerConfig:
        close = close_to(name, self)
        question = "" if close is None else f"Did you mean {close!r}? "
        raise UsageError(f"there is no server {name!r}", hint=f"{question}The servers: {', '.join(self)}")
