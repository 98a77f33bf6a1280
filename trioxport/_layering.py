"""The layers of a connection: sorted by their level, and checked for mistakes in the list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeGuard, cast

from trioxport._diagnostics.validators import kind_of
from trioxport.abc import FrameLayer, Layer, MessageLayer
from trioxport.errors import UsageError


class LayerSplit(NamedTuple):
    """The message layers and the frame layers, each with the one closest to the application first."""

    messages: Sequence[MessageLayer]
    frames: Sequence[FrameLayer]


def split_layers(layers: Sequence[Layer]) -> LayerSplit:
    """Sort ``layers`` by their level.

    Raises:
        TypeError: Something in the list is not a layer, or the list is in the wrong order.
        UsageError: A layer is in the list twice, or has nothing to do at its place.
    """
    split = LayerSplit([], [])
    if not layers:
        return split
    for layer in _listed(layers):
        _add(layer, split)
    _refuse_repeated(layers)
    if len(split.frames) > 1:
        _refuse_idle(split.frames)
    return split


def _listed(layers: object) -> Iterable[Layer]:
    if hasattr(layers, "wrap"):
        raise TypeError(f"layers is a list of layers: layers=[{layers!r}]")
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        raise TypeError(f"layers is a list of layers, and not {kind_of(layers)}")
    return cast("Iterable[Layer]", layers)


def _add(layer: Layer, split: LayerSplit) -> None:
    if isinstance(layer, type):
        name = cast("type[Any]", layer).__name__
        raise TypeError(f"{name} is a class, and a layer is an object of it: layers=[{name}(...)]")
    if _is_frame_layer(layer):
        cast("list[FrameLayer]", split.frames).append(layer)
    elif not _is_message_layer(layer):
        raise TypeError(f"{layer!r} is no layer: a layer has a method wrap, and level = 'message' or level = 'frame'")
    elif split.frames:
        raise TypeError(
            f"message layer {layer!r} comes after frame layer {split.frames[-1]!r}: message layers are closer to "
            "the application, so list them first"
        )
    else:
        cast("list[MessageLayer]", split.messages).append(layer)


def _is_message_layer(layer: object) -> TypeGuard[MessageLayer]:
    return isinstance(layer, MessageLayer) and layer.level == "message"


def _is_frame_layer(layer: object) -> TypeGuard[FrameLayer]:
    return isinstance(layer, FrameLayer) and layer.level == "frame"


def _refuse_repeated(layers: Sequence[Layer]) -> None:
    for place, layer in enumerate(layers):
        if any(layer is other for other in layers[:place]):
            raise UsageError(f"the layer {layer!r} is in the list twice", hint="List it once, or make another one")


def _refuse_idle(layers: Sequence[FrameLayer]) -> None:
    from trioxport.layers.batching import Batching
    from trioxport.layers.encryption import Encryption
    from trioxport.layers.signing import Signing

    kinds = [type(layer) for layer in layers]
    above = kinds[: kinds.index(Batching)] if Batching in kinds else []
    for kind in (Signing, Encryption):
        if kind in above:
            raise UsageError(
                f"Batching below {kind.__name__} has nothing to do: each message travels in an envelope of its own",
                hint="List Batching first",
            )
