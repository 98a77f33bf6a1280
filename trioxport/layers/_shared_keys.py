"""Keys that both sides share, by their ids, and the messages that were received under them."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from trioxport._diagnostics.validators import OptionCheck, instance_of
from trioxport.abc import FrameChannels
from trioxport.errors import ProtocolViolation, UsageError

_KEYS: Final = OptionCheck("a mapping of keys by their ids", lambda keys: isinstance(keys, Mapping))
_KEY: Final = instance_of(bytes, "bytes")
_KEY_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGITS: Final = re.compile(r"[0-9]{1,18}")


def key_check(purpose: str, check: Callable[[str, bytes], None]) -> Callable[[Any, Any, Mapping[str, bytes]], None]:
    """Make the validator of a mapping of keys; it raises ``UsageError``.

    Args:
        purpose: The use of the keys, for errors.
        check: Called with each id and key; raises ``UsageError``.
    """

    def checked(_layer: object, _field: object, keys: Mapping[str, bytes]) -> None:
        _KEYS.option("keys", keys)
        if not keys:
            raise UsageError(f"{purpose} needs a key")
        for key_id, key in keys.items():
            if not _KEY_ID.fullmatch(key_id):
                raise UsageError(f"{key_id!r} is no id of a key", hint="Use up to 64 letters, digits, '.', '_' and '-'")
            _KEY.option(f"keys[{key_id!r}]", key)
            check(key_id, key)

    return checked


def whole_number(text: str) -> int:
    """The number in a field of an envelope. Raises ``ProtocolViolation``."""
    if not _DIGITS.fullmatch(text):
        raise ProtocolViolation("the head of a message is of another kind")
    return int(text)


def require_order(channels: FrameChannels) -> None:
    """Raise ``UsageError`` for a connection on which a repetition is no attack, and cannot be told from one."""
    if not channels.ordered:
        raise UsageError(
            "requests out of a queue come in any order, and may come again, which this layer refuses",
            hint="Encrypt the connection to the queue, or serve the service without a queue",
        )


@attrs.define
class SeenStreams:
    """The latest number of each received stream of messages, and the latest time at which one of them was sent.

    A stream is forgotten once its messages are too old to begin one anew.

    Args:
        max_age: Seconds between the sending and the receiving of the first message of a stream.
    """

    max_age: float
    _streams: OrderedDict[str, tuple[int, int]] = attrs.Factory(OrderedDict[str, tuple[int, int]])

    def accept(self, stream: str, number: int, sent_at: int, now: float) -> None:
        """Record a message that is authentic. Raises ``ProtocolViolation`` if it is a repetition or too old."""
        last = self._streams.get(stream)
        if last is None:
            age = now - sent_at
            if abs(age) > self.max_age:
                raise ProtocolViolation(f"a message was sent {age:.0f} s ago", hint="Check the clocks of both sides")
            self._forget(now)
        elif number <= last[0]:
            raise ProtocolViolation("a message comes again, or late")
        else:
            sent_at = max(sent_at, last[1])  # the clock of the sender may have been set back
        self._streams[stream] = (number, sent_at)
        self._streams.move_to_end(stream)

    def _forget(self, now: float) -> None:
        while self._streams and now - next(iter(self._streams.values()))[1] > self.max_age:
            self._streams.popitem(last=False)
