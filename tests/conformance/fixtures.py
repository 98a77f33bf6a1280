"""The tools, resources and prompts that the conformance suite expects of a server, with its names and contents."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any, Final, Literal

import mcp.types as types
from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel, Field, JsonValue


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0\xff\0\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def _wav() -> bytes:
    samples = struct.pack("<h", 0)
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16)
    data = struct.pack("<4sI", b"data", len(samples)) + samples
    return struct.pack("<4sI4s", b"RIFF", 4 + len(layout) + len(data), b"WAVE") + layout + data


PNG: Final = _png()
IMAGE: Final = types.ImageContent(data=base64.b64encode(PNG).decode(), mime_type="image/png")
AUDIO: Final = types.AudioContent(data=base64.b64encode(_wav()).decode(), mime_type="audio/wav")


def text(content: str) -> types.TextContent:
    return types.TextContent(text=content)


def embedded(uri: str, content: str, mime_type: str = "text/plain") -> types.EmbeddedResource:
    return types.EmbeddedResource(
        resource=types.TextResourceContents(uri=uri, mime_type=mime_type, text=content),
    )


class Answer(BaseModel):
    response: str


class Defaults(BaseModel):
    """A default of each primitive type."""

    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: str = Field("active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = True


def _titled(**titles: str) -> list[JsonValue]:
    return [{"const": name, "title": title} for name, title in titles.items()]


class Choices(BaseModel):
    """Every form in which a choice can be asked for."""

    untitledSingle: str = Field(json_schema_extra={"enum": ["option1", "option2", "option3"]})  # noqa: N815 (as on the wire)
    titledSingle: str = Field(json_schema_extra={"oneOf": _titled(value1="First", value2="Second")})  # noqa: N815 (as on the wire)
    legacyEnum: str = Field(json_schema_extra={"enum": ["opt1", "opt2"], "enumNames": ["One", "Two"]})  # noqa: N815 (as on the wire)
    untitledMulti: list[str] = Field(json_schema_extra={"items": {"type": "string", "enum": ["a", "b"]}})  # noqa: N815 (as on the wire)
    titledMulti: list[str] = Field(json_schema_extra={"items": {"anyOf": _titled(a="First", b="Second")}})  # noqa: N815 (as on the wire)


def add_contents(server: MCPServer) -> None:
    """Tools, resources and prompts that answer at once, always the same."""

    @server.tool()
    def test_simple_text() -> str:
        """Answers with a text."""
        return "This is a simple text response for testing."

    @server.tool()
    def test_image_content() -> list[types.ImageContent]:
        """Answers with an image."""
        return [IMAGE]

    @server.tool()
    def test_audio_content() -> list[types.AudioContent]:
        """Answers with a sound."""
        return [AUDIO]

    @server.tool()
    def test_embedded_resource() -> list[types.EmbeddedResource]:
        """Answers with a resource."""
        return [embedded("test://embedded-resource", "This is an embedded resource content.")]

    @server.tool()
    def test_multiple_content_types() -> list[types.TextContent | types.ImageContent | types.EmbeddedResource]:
        """Answers with a text, an image and a resource."""
        data = json.dumps({"test": "data", "value": 123})
        return [
            text("Multiple content types test:"),
            IMAGE,
            embedded("test://mixed-content-resource", data, "application/json"),
        ]

    @server.tool()
    def test_error_handling() -> str:
        """Fails."""
        raise RuntimeError("This tool intentionally returns an error for testing")

    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        return PNG

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:  # noqa: A002 (the name in the template)
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    @server.resource("test://watched-resource")
    def watched() -> str:
        return "Watched resource content"

    @server.prompt()
    def test_simple_prompt() -> str:
        """A prompt without arguments."""
        return "This is a simple prompt for testing."

    @server.prompt()
    def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
        """A prompt that repeats its arguments."""
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt()
    def test_prompt_with_embedded_resource(resourceUri: str) -> list[dict[str, Any]]:  # noqa: N803 (as on the wire)
        """A prompt about a resource."""
        content = embedded(resourceUri, "Embedded resource content for testing.")
        return [_said(content), _said(text("Please process the embedded resource above."))]

    @server.prompt()
    def test_prompt_with_image() -> list[dict[str, Any]]:
        """A prompt about an image."""
        return [_said(IMAGE), _said(text("Please analyze the image above."))]


def _said(content: types.ContentBlock, role: Literal["user"] = "user") -> dict[str, Any]:
    return {"role": role, "content": content.model_dump(by_alias=True, exclude_none=True)}
