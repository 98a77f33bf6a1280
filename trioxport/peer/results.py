"""Results of servers as attrs classes. What a class has no field for is kept in its ``extra``.

Specification 2026-07-28, server/tools, server/resources, server/prompts and server/utilities/completion.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

import attrs

from trioxport.errors import ProtocolViolation
from trioxport.messages import NOTHING
from trioxport.protocol import items_of, members_of

Result = TypeVar("Result", bound=attrs.AttrsInstance)
Read = Callable[[Any, str], Any]
"""Turns a member into a field; raises ``ProtocolViolation``, which names the member by the text."""

_HINT: Final = "Report this to the authors of the server"
_READ: Final = "read"
_MEMBER: Final = "member"


def structure(kind: type[Result], value: object, where: str) -> Result:
    """The object of class ``kind`` that a JSON object stands for.

    Args:
        kind: One of the classes of this module.
        value: The JSON object.
        where: The place of ``value`` in the answer, for the error.

    Raises:
        ProtocolViolation: A member is missing or of the wrong type; it names the place.
    """
    if not isinstance(value, dict):
        raise ProtocolViolation(f"{where} is no JSON object", hint=_HINT)
    members = dict(cast("dict[str, Any]", value))
    found: dict[str, Any] = {}
    for field in attrs.fields(kind):
        member = field.metadata.get(_MEMBER)
        if member in members:
            found[field.name] = field.metadata[_READ](members.pop(member), f"{where}.{member}")
        elif member is not None and field.default is attrs.NOTHING:
            raise ProtocolViolation(f"{where} has no member {member!r}", hint=_HINT)
    found["extra"] = members
    return kind(**found)


def unstructure(value: object) -> Any:
    """The JSON value that an object of this module, or a sequence of such, stands for: the inverse of ``structure``."""
    if isinstance(value, tuple):
        return [unstructure(each) for each in cast("tuple[object, ...]", value)]
    kind: Any = value.__class__
    if not attrs.has(kind):
        return value
    members: dict[str, Any] = {}
    for field in attrs.fields(kind):
        given = getattr(value, field.name)
        if _MEMBER not in field.metadata:
            members |= given
        elif given != field.default:
            members[field.metadata[_MEMBER]] = unstructure(given)
    return members


def _nested(kind: type[attrs.AttrsInstance]) -> Read:
    return lambda value, where: structure(kind, value, where)


def structured_list(kind: type[Result]) -> Read:
    """The reader of an array of objects of class ``kind``."""

    def read(value: Any, where: str) -> Sequence[Result]:
        items = items_of(value)
        if not isinstance(value, list):
            raise ProtocolViolation(f"{where} is no array", hint=_HINT)
        return tuple(structure(kind, item, f"{where}[{place}]") for place, item in enumerate(items))

    return read


def _of_type(*kinds: type) -> Read:
    def read(value: Any, where: str) -> Any:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ProtocolViolation(f"{where} is of the type {type(value).__name__}", hint=_HINT)
        return value

    return read


def _anything(value: Any, where: str) -> Any:
    return value


_TEXT: Final = _of_type(str)
_OBJECT: Final = _of_type(dict)
_FLAG: Final = _of_type(bool)
_NUMBER: Final = _of_type(int, float)


def _from(member: str, read: Read) -> dict[str, Any]:
    """The metadata of a field that is read from a member."""
    return {_MEMBER: member, _READ: read}


def _field(member: str, read: Read, default: Any = attrs.NOTHING, *, shown: bool = True) -> Any:
    return attrs.field(default=default, repr=shown, metadata=_from(member, read))


def _extra() -> Any:
    return attrs.field(default=NOTHING, kw_only=True)


def _optional_text(member: str) -> Any:
    return _field(member, _TEXT, None)


@attrs.frozen
class Tool:
    """A tool that a server offers.

    Args:
        name: The name to call it by.
        input_schema: The JSON Schema of its arguments.
        title: The name for people.
        description: The description for people and models.
        output_schema: The JSON Schema of the structured content of its results.
        annotations: Hints about its behaviour, not to be trusted unless the server is.
        extra: Members that have no field here, such as ``_meta`` and ``icons``.
    """

    name: str = _field("name", _TEXT)
    input_schema: Mapping[str, Any] = _field("inputSchema", _OBJECT, NOTHING)
    title: str | None = _optional_text("title")
    description: str | None = _optional_text("description")
    output_schema: Mapping[str, Any] | None = _field("outputSchema", _OBJECT, None)
    annotations: Mapping[str, Any] = _field("annotations", _OBJECT, NOTHING)
    extra: Mapping[str, Any] = _extra()


@attrs.frozen
class ResourceContents:
    """The contents of a resource: text, or bytes in Base64.

    Args:
        uri: The resource.
        mime_type: Its media type.
        text: Its text, where it is text.
        blob: Its bytes in Base64, where it is not.
        extra: Members that have no field here.
    """

    uri: str = _field("uri", _TEXT)
    mime_type: str | None = _optional_text("mimeType")
    text: str | None = _optional_text("text")
    blob: str | None = _field("blob", _TEXT, None, shown=False)
    extra: Mapping[str, Any] = _extra()

    @property
    def data(self) -> bytes:
        """The contents as bytes. Raises ``ProtocolViolation`` for what is no Base64."""
        if self.blob is not None:
            return _decoded(self.blob, f"the contents of {self.uri}")
        return (self.text or "").encode(errors="surrogatepass")


@attrs.frozen
class Content:
    """One block of a tool's result or of a prompt's message.

    Args:
        type: ``"text"``, ``"image"``, ``"audio"``, ``"resource"``, ``"resource_link"``, or another of a later revision.
        text: The text of a text.
        encoded: The bytes of an image or of a sound in Base64.
        mime_type: The media type of an image, a sound or a linked resource.
        resource: The contents of an embedded resource.
        uri: The address of a linked resource.
        name: The name of a linked resource.
        extra: Members that have no field here, such as ``annotations``.
    """

    type: str = _field("type", _TEXT)
    text: str | None = _optional_text("text")
    encoded: str | None = _field("data", _TEXT, None, shown=False)
    mime_type: str | None = _optional_text("mimeType")
    resource: ResourceContents | None = attrs.field(default=None, metadata=_from("resource", _nested(ResourceContents)))
    uri: str | None = _optional_text("uri")
    name: str | None = _optional_text("name")
    extra: Mapping[str, Any] = _extra()

    @property
    def data(self) -> bytes:
        """The bytes of an image or of a sound. Raises ``ProtocolViolation`` for what is no Base64."""
        return _decoded(self.encoded or "", f"the {self.type} block")


@attrs.frozen
class ToolResult:
    """The result of a call.

    Args:
        content: Its blocks.
        structured: Its structured content; None if there is none.
        is_error: Whether the tool failed: then the blocks say why.
        extra: Members that have no field here.
    """

    content: Sequence[Content] = _field("content", structured_list(Content), ())
    structured: Any = attrs.field(default=None, metadata=_from("structuredContent", _anything))
    is_error: bool = _field("isError", _FLAG, False)
    extra: Mapping[str, Any] = _extra()

    @property
    def text(self) -> str:
        """The text blocks, a line feed between them."""
        return "\n".join(block.text for block in self.content if block.text is not None)


@attrs.frozen
class Resource:
    """A resource that a server offers; ``extra`` has the members without a field here."""

    uri: str = _field("uri", _TEXT)
    name: str = _field("name", _TEXT)
    title: str | None = _optional_text("title")
    description: str | None = _optional_text("description")
    mime_type: str | None = _optional_text("mimeType")
    size: float | None = _field("size", _NUMBER, None)
    extra: Mapping[str, Any] = _extra()


@attrs.frozen
class ResourceTemplate:
    """A template (RFC 6570) for the URIs of resources; ``extra`` has the members without a field here."""

    uri_template: str = _field("uriTemplate", _TEXT)
    name: str = _field("name", _TEXT)
    title: str | None = _optional_text("title")
    description: str | None = _optional_text("description")
    mime_type: str | None = _optional_text("mimeType")
    extra: Mapping[str, Any] = _extra()


@attrs.frozen
class PromptArgument:
    """An argument of a prompt; ``extra`` has the members without a field here."""

    name: str = _field("name", _TEXT)
    title: str | None = _optional_text("title")
    description: str | None = _optional_text("description")
    required: bool = _field("required", _FLAG, False)
    extra: Mapping[str, Any] = _extra()


@attrs.frozen
class Prompt:
    """A prompt that a server offers; ``extra`` has the members without a field here."""

    name: str = _field("name", _TEXT)
    title: str | None = _optional_text("title")
    description: str | None = _optional_text("description")
    arguments: Sequence[PromptArgument] = _field("arguments", structured_list(PromptArgument), ())
    extra: Mapping[str, Any] = _extra()


@attrs.frozen
class PromptMessage:
    """A message of a prompt, by the ``"user"`` or the ``"assistant"``."""

    role: str = attrs.field(metadata=_from("role", _TEXT))
    content: Content = attrs.field(metadata=_from("content", _nested(Content)))
    extra: Mapping[str, Any] = _extra()


@attrs.frozen
class PromptResult:
    """A prompt with its arguments filled in; ``extra`` has the members without a field here."""

    messages: Sequence[PromptMessage] = _field("messages", structured_list(PromptMessage))
    description: str | None = _optional_text("description")
    extra: Mapping[str, Any] = _extra()


@attrs.frozen
class Completion:
    """Values that an argument may have.

    Args:
        values: At most a hundred of them, the best first.
        total: The number of all, where the server knows it.
        has_more: Whether there are more.
        extra: Members that have no field here.
    """

    values: Sequence[str] = _field("values", lambda value, where: tuple(_TEXT(item, where) for item in items_of(value)))
    total: float | None = _field("total", _NUMBER, None)
    has_more: bool = _field("hasMore", _FLAG, False)
    extra: Mapping[str, Any] = _extra()


def _decoded(encoded: str, what: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:  # binascii.Error among them
        raise ProtocolViolation(f"{what} is no Base64: {error}") from error


def contents_of(result: object) -> Sequence[ResourceContents]:
    """The contents in the result of ``resources/read``."""
    read = structured_list(ResourceContents)
    found: Sequence[ResourceContents] = read(members_of(result).get("contents"), "resources/read: contents")
    return found
