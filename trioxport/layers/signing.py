"""Signatures of frames: each sent one is signed, and a received one without a valid signature is refused."""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from collections.abc import Mapping
from typing import ClassVar, Final, Literal

import attrs

from trioxport._diagnostics.validators import SECONDS
from trioxport.abc import Codec, FrameChannels, Role, Scope
from trioxport.errors import MessageTooLarge, ProtocolViolation, TransportError, UsageError
from trioxport.frames import Frame
from trioxport.framing.envelope import Envelope, open_envelope
from trioxport.layers._shared_keys import SeenStreams, key_check, require_order, whole_number
from trioxport.layers._support import PassingReceive, PassingSend

NAME: Final = "hmac-sha256"
MIN_KEY_BYTES: Final = 32
"""The size of the hash: RFC 2104, section 3, discourages shorter keys."""


def _check_size(key_id: str, key: bytes) -> None:
    if len(key) < MIN_KEY_BYTES:
        raise UsageError(f"the key {key_id} is shorter than {MIN_KEY_BYTES} bytes", hint="secrets.token_bytes(32)")


@attrs.frozen(eq=False)
class Signing:
    """HMAC-SHA-256 (RFC 2104) of every message, in both directions, with keys that both sides share.

    It protects messages that pass through a broker or a relay. A message that was altered, forged, reflected to its
    sender or replayed is a ``ProtocolViolation``: it is discarded and counted, and if it looks like the answer to a
    request, it settles that request. The layer does not encrypt, and does not detect that messages were withheld.

    Each connection numbers its messages, and a number that this instance has verified before is a replay, over any of
    its connections. After a restart the numbers are unknown: a recording is then refused by its age alone, so a replay
    within ``max_age`` seconds can pass.

    The signature precedes the message, in about 110 bytes of text. An answer over HTTP has no place for it: there the
    layer is refused. Put ``Compression`` before it: then only signed payloads are expanded.

    Args:
        keys: Secrets of at least 32 bytes by their ids. The first one signs and all are accepted. To replace a key,
            add the new one last on both sides, then move it to the front, then remove the old one. The mapping is read
            for each message, so it may change while connections are open.
        max_age: Seconds between signing and verifying the first message of a connection, which cover the time on the
            way and the difference between the clocks.

    Raises:
        UsageError: For a key that is too short, or on opening a connection over HTTP.
    """

    level: ClassVar[Literal["frame"]] = "frame"

    keys: Mapping[str, bytes] = attrs.field(
        repr=lambda keys: str(list(keys)), validator=key_check("signing", _check_size)
    )
    max_age: float = attrs.field(default=300.0, validator=SECONDS)
    _seen: SeenStreams = attrs.field(
        init=False, repr=False, default=attrs.Factory(lambda self: SeenStreams(self.max_age), takes_self=True)
    )

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        require_order(channels)
        if channels.carried() in ("http", "events"):
            raise UsageError("over HTTP an answer has no place for a signature", hint="Use https://")
        peer: Role = "client" if scope.settings.role == "server" else "server"
        signer, verifier = _Signer(self.keys, scope), _Verifier(self.keys, self._seen, peer, scope.settings.codec)
        return attrs.evolve(
            channels,
            send=PassingSend(channels.send, signer.signed),
            receive=PassingReceive(channels.receive, verifier.verified),
        )


def _signature(key: bytes, sender: Role, fields: list[str], payload: bytes) -> str:
    """The signature over the sender's role, the fields of the envelope and the payload.

    With the role, a message that is reflected to its sender does not verify.
    """
    signed = f"{sender};{';'.join(fields)}~".encode() + payload
    return base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


class _Signer:
    """Signs the frames that one connection sends."""

    def __init__(self, keys: Mapping[str, bytes], scope: Scope) -> None:
        self._keys = keys
        self._role: Role = scope.settings.role
        self._max_size = scope.settings.limits.max_message_size
        self._stream = secrets.token_urlsafe(12)
        self._number = 0

    def signed(self, frame: Frame) -> Frame:
        self._number += 1
        key_id, key = next(iter(self._keys.items()))
        fields = [NAME, key_id, self._stream, str(self._number), str(int(time.time()))]
        signature = _signature(key, self._role, fields, frame.payload)
        payload = Envelope([*fields, signature], frame.payload).pack()
        if len(payload) > self._max_size:
            raise MessageTooLarge(
                f"with its signature, a message of {len(payload)} bytes is over the limit of {self._max_size}",
                outcome="not_sent",
            )
        return attrs.evolve(frame, payload=payload)


@attrs.frozen
class _Verifier:
    """Verifies the frames that one connection receives."""

    keys: Mapping[str, bytes]
    seen: SeenStreams
    sender: Role
    codec: Codec

    def verified(self, frame: Frame) -> Frame:
        if frame.error is not None:
            return frame if frame.message is not None else self._refused(frame.payload, frame.error)
        envelope = open_envelope(frame.payload)
        try:
            if envelope is None or envelope.fields[0] != NAME:
                raise ProtocolViolation("a message is not signed", hint="Give both sides the same Signing")
            self._verify(envelope)
        except ProtocolViolation as error:
            return self._refused(frame.payload if envelope is None else envelope.body, error)
        return attrs.evolve(frame, payload=envelope.body)

    def _refused(self, payload: bytes, error: TransportError) -> Frame:
        """The frame that reports a payload without a valid signature.

        It may settle a request of this side, as unknown. It is not answered: a signed error in answer to a forged
        request would tell the peer that its own request with that id was not carried out.
        """
        return Frame(payload if self.codec.identify(payload) is not None else b"", error=error)

    def _verify(self, envelope: Envelope) -> None:
        *fields, signature = envelope.fields
        if len(fields) != 5:
            raise ProtocolViolation("a signature is of another kind")
        _, key_id, stream, number, sent_at = fields
        key = self.keys.get(key_id)
        if key is None:
            raise ProtocolViolation(f"a message is signed with a key that is not known here ({key_id[:64]})")
        expected = _signature(key, self.sender, fields, envelope.body)
        if not hmac.compare_digest(signature, expected):
            raise ProtocolViolation("a signature does not fit its message")
        self.seen.accept(stream, whole_number(number), whole_number(sent_at), time.time())
