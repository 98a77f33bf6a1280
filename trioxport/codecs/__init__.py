"""Codecs: how a message is written as bytes."""

from trioxport.codecs.json import JSON
from trioxport.codecs.msgpack import MessagePack

__all__ = ["JSON", "MessagePack"]
