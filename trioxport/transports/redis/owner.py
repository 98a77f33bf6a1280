"""The owner of a session, as a replica that forwards requests to it finds it."""

from __future__ import annotations

from typing import Final

from trioxport.errors import TransportError
from trioxport.transports.redis.forward_messages import Opening, ToOwner, encode
from trioxport.transports.redis.lease import Leases
from trioxport.transports.redis.link import RedisLink

NOTE_SECONDS: Final = 60.0
"""Seconds for which Redis keeps that a request had no receiver."""


class SessionOwner:
    """The owner of a session, at the address at which it was found, for one request.

    Args:
        link: The connection to Redis.
        leases: The leases.
        prefix: The beginning of the names of the keys and channels of the service.
        replica: The id of the owner.
        address: Its address.

    Attributes:
        channel: Its channel.
        patience: Seconds of silence after which it is looked for.
    """

    def __init__(self, link: RedisLink, leases: Leases, prefix: str, replica: str, address: str) -> None:
        self.channel = f"{prefix}at:{address}"
        self.patience = leases.seconds
        self._link = link
        self._leases = leases
        self._prefix = prefix
        self._replica = replica
        self._address = address

    def open(self, opening: Opening) -> None:
        """Send the first message of a request. Raises ``TransportError``.

        Redis does not answer whether it had a receiver, which would wake this process as the owner begins to work, but
        keeps a note if it had none.
        """
        self._note = note_of(self._prefix, self._address, opening.sender, opening.number)
        self._link.tell_or_note(self.channel, encode(opening), self._note, NOTE_SECONDS)

    def send(self, message: ToOwner) -> None:
        """Send a further message. Raises ``TransportError``."""
        self._link.tell(self.channel, encode(message))

    async def has_received(self) -> bool:
        """Whether the first message had a receiver."""
        try:
            return await self._link.command(b"GET", self._note) is None
        except TransportError:
            return True  # the connection, if it is lost, ends the forward

    async def is_there(self) -> bool:
        """Whether the owner can still be found where it was."""
        try:
            return await self._leases.address_of(self._link, self._replica) == self._address
        except TransportError:
            return True


def note_of(prefix: str, address: str, sender: str, number: int) -> str:
    """The key that says that a request had no receiver at an address."""
    return f"{prefix}unreached:{address}:{sender}:{number}"
