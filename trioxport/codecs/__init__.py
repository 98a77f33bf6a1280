"""Codecs: how a message is written as bytes."""

from typing import TYPE_CHECKING

from trioxport.codecs.json import JSON

if TYPE_CHECKING:
    from trioxport.codecs.msgpack import MessagePack

__all__ = ["JSON", "MessagePack"]

if not TYPE_CHECKING:  # a checker is to find names that do not exist

    def __getattr__(name: str) -> object:
        if name == "MessagePack":  # few programs use it
            from trioxport.codecs.msgpack import MessagePack

            return MessagePack
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
