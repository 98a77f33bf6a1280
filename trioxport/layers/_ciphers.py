"""Ciphers of streams of messages: authenticated encryption with associated data (RFC 5116), a key for each stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trioxport.errors import ProtocolViolation

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12

_CIPHERS: Final[dict[str, type[AESGCM | ChaCha20Poly1305]]] = {
    "aes-256-gcm": AESGCM,
    "chacha20-poly1305": ChaCha20Poly1305,
}


@attrs.frozen
class StreamCipher:
    """The cipher of one stream of messages. The number of a message in the stream is its nonce."""

    _aead: AESGCM | ChaCha20Poly1305

    def encrypt(self, number: int, content: bytes, head: bytes) -> bytes:
        """Encrypt a message; ``head`` is authenticated with it."""
        return self._aead.encrypt(number.to_bytes(NONCE_BYTES, "big"), content, head)

    def decrypt(self, number: int, body: bytes, head: bytes) -> bytes:
        """Decrypt a message. Raises ``ProtocolViolation`` for one that is not authentic."""
        try:
            return self._aead.decrypt(number.to_bytes(NONCE_BYTES, "big"), body, head)
        except (InvalidTag, ValueError):  # a ValueError: it is shorter than a tag
            raise ProtocolViolation("an encrypted message is not authentic") from None


class StreamCiphers:
    """The ciphers of the streams that one connection sends or receives; the latest one is kept.

    Args:
        keys: The shared keys by their ids.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = keys
        self._latest: tuple[str, bytes, str] | None = None
        self._cipher: StreamCipher | None = None

    def find(self, name: str, key_id: str, stream: str) -> StreamCipher:
        """The cipher of a stream. Raises ``ProtocolViolation`` for a key that is not known."""
        key = self._keys.get(key_id)
        if key is None:
            raise ProtocolViolation(f"a message is encrypted with a key that is not known here ({key_id[:64]})")
        wanted = (name, key, stream)
        if self._cipher is None or self._latest != wanted:
            info = f"trioxport {name}".encode()
            derived = HKDF(SHA256(), KEY_BYTES, salt=stream.encode(), info=info).derive(key)
            self._latest, self._cipher = wanted, StreamCipher(_CIPHERS[name](derived))
        return self._cipher
