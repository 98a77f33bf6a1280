"""Encryption of frames: a broker between both sides reads no message, and changes none unnoticed."""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Final, Literal

import attrs

from trioxport._diagnostics.hints import install_hint
from trioxport._diagnostics.validators import SECONDS, one_of
from trioxport.abc import Carries, Codec, FrameChannels, Role, Scope
from trioxport.errors import MessageTooLarge, ProtocolViolation, TransportError, UsageError
from trioxport.frames import Frame
from trioxport.framing.envelope import Envelope, open_envelope
from trioxport.layers._shared_keys import SeenStreams, key_check, require_order, whole_number
from trioxport.layers._support import PassingReceive, PassingSend

if TYPE_CHECKING:
    from trioxport.layers._ciphers import StreamCiphers

Cipher = Literal["aes-256-gcm", "chacha20-poly1305"]

KEY_BYTES: Final = 32
STREAM_BYTES: Final = 16
CIPHERS: Final[tuple[Cipher, ...]] = ("aes-256-gcm", "chacha20-poly1305")

_BASE64: Final = "base64"


def _check_size(key_id: str, key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise UsageError(f"the key {key_id} has {len(key)} bytes, not {KEY_BYTES}", hint="secrets.token_bytes(32)")


@attrs.frozen(eq=False)
class Encryption:
    """AES-256-GCM or ChaCha20-Poly1305 around every message, in both directions, with keys that both sides share.

    It protects messages that pass through a broker or a relay, which then can read, alter, forge, reflect, replay and
    reorder none unnoticed. A message that is not authentic is a ``ProtocolViolation``: it is discarded and counted. The
    layer does not detect that messages were withheld, and shows their sizes and times.

    Each connection encrypts under a key of its own, made by HKDF-SHA-256 (RFC 5869) from the shared key and 16 random
    bytes, and counts its messages. The count is the nonce, so none is used twice under a key, whatever the number of
    connections and restarts. The associated data are the sender's role and the head of the envelope with the count.

    A count that this instance has seen before is a replay, over any of its connections. After a restart the counts are
    unknown: a recording is then refused by its age alone, so a replay within ``max_age`` seconds can pass.

    An answer over HTTP has no place for an envelope: there the layer is refused. Put ``Compression`` before it.

    Args:
        keys: Secrets of 32 bytes by their ids. The first one encrypts and all decrypt. To replace a key, add the new
            one last on both sides, then move it to the front, then remove the old one. The mapping is read for each
            message, so it may change while connections are open.
        cipher: The cipher for sent messages; received ones may use either.
        max_age: Seconds between encrypting and decrypting the first message of a connection, which cover the time on
            the way and the difference between the clocks.

    Raises:
        UsageError: For a key of another size, or on opening a connection over HTTP or without the extra ``crypto``.
    """

    level: ClassVar[Literal["frame"]] = "frame"

    keys: Mapping[str, bytes] = attrs.field(
        repr=lambda keys: str(list(keys)), validator=key_check("encryption", _check_size)
    )
    cipher: Cipher = attrs.field(default="aes-256-gcm", validator=one_of(*CIPHERS), kw_only=True)
    max_age: float = attrs.field(default=300.0, validator=SECONDS, kw_only=True)
    _seen: SeenStreams = attrs.field(
        init=False, repr=False, default=attrs.Factory(lambda self: SeenStreams(self.max_age), takes_self=True)
    )

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        require_order(channels)
        if channels.carried() in ("http", "events"):
            raise UsageError("over HTTP an answer has no place for an encrypted message", hint="Use https://")
        peer: Role = "client" if scope.settings.role == "server" else "server"
        encryptor = _Encryptor(self, scope, channels.carried)
        decryptor = _Decryptor(_ciphers(self.keys), self._seen, peer, scope.settings.codec)
        return attrs.evolve(
            channels,
            send=PassingSend(channels.send, encryptor.encrypted),
            receive=PassingReceive(channels.receive, decryptor.decrypted),
        )


def _ciphers(keys: Mapping[str, bytes]) -> StreamCiphers:
    try:
        from trioxport.layers._ciphers import StreamCiphers
    except ImportError as error:
        raise UsageError(
            "cryptography is not installed, which Encryption needs", hint=install_hint("crypto")
        ) from error
    return StreamCiphers(keys)


def _associated(sender: Role, fields: list[str]) -> bytes:
    """The associated data: with the role, a message that is reflected to its sender is not authentic."""
    return f"{sender};{';'.join(fields)}".encode()


class _Encryptor:
    """Encrypts the frames that one connection sends."""

    def __init__(self, layer: Encryption, scope: Scope, carried: Callable[[], Carries]) -> None:
        self._layer = layer
        self._ciphers = _ciphers(layer.keys)
        self._role: Role = scope.settings.role
        self._max_size = scope.settings.limits.max_message_size
        self._carried = carried
        self._stream = secrets.token_urlsafe(STREAM_BYTES)
        self._number = 0

    def encrypted(self, frame: Frame) -> Frame:
        self._number += 1
        name, key_id = self._layer.cipher, next(iter(self._layer.keys))
        fields = [name, key_id, self._stream, str(self._number), str(int(time.time()))]
        if self._carried() != "bytes":
            fields.append(_BASE64)
        cipher = self._ciphers.find(name, key_id, self._stream)
        body = cipher.encrypt(self._number, frame.payload, _associated(self._role, fields))
        payload = Envelope(fields, base64.b64encode(body) if fields[-1] == _BASE64 else body).pack()
        if len(payload) > self._max_size:
            raise MessageTooLarge(
                f"encrypted, a message of {len(payload)} bytes is over the limit of {self._max_size}",
                outcome="not_sent",
            )
        return attrs.evolve(frame, payload=payload)


@attrs.frozen
class _Decryptor:
    """Decrypts the frames that one connection receives."""

    ciphers: StreamCiphers
    seen: SeenStreams
    sender: Role
    codec: Codec

    def decrypted(self, frame: Frame) -> Frame:
        if frame.error is not None:
            return frame if frame.message is not None else self._refused(frame.payload, frame.error)
        envelope = open_envelope(frame.payload)
        try:
            if envelope is None or envelope.fields[0] not in CIPHERS:
                raise ProtocolViolation("a message is not encrypted", hint="Give both sides the same Encryption")
            return attrs.evolve(frame, payload=self._decrypt(envelope))
        except ProtocolViolation as error:
            return self._refused(frame.payload, error)

    def _refused(self, payload: bytes, error: TransportError) -> Frame:
        """The frame that reports a message that is not authentic.

        One in clear text may settle a request of this side, as unknown. None is answered.
        """
        return Frame(payload if self.codec.identify(payload) is not None else b"", error=error)

    def _decrypt(self, envelope: Envelope) -> bytes:
        fields = list(envelope.fields)
        if len(fields) not in (5, 6):
            raise ProtocolViolation("an encrypted message is of another kind")
        name, key_id, stream = fields[:3]
        number, sent_at = map(whole_number, fields[3:5])
        cipher = self.ciphers.find(name, key_id, stream)
        content = cipher.decrypt(number, _body(envelope), _associated(self.sender, fields))
        self.seen.accept(stream, number, sent_at, time.time())
        return content


def _body(envelope: Envelope) -> bytes:
    if envelope.fields[-1] != _BASE64:
        return envelope.body
    try:
        return base64.b64decode(envelope.body, validate=True)
    except binascii.Error:
        raise ProtocolViolation("an encrypted message is not base64") from None
