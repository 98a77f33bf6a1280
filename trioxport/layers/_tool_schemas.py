"""The schemas that a server gives its tools, for the arguments of calls and for their structured results.

Specification 2026-07-28, server/tools, sections Tool and Output Schema.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
import msgspec

from trioxport.abc import Scope
from trioxport.codecs.jsonrpc import plain
from trioxport.layers._conventions import VERSION_IN_META
from trioxport.layers._schema import MASK, Fault, fault_of
from trioxport.layers._schema_bounds import UnusableSchema, depth_of, greatest_depth
from trioxport.messages import NOTHING, Message, Notification, Request, Response
from trioxport.protocol import items_of, members_of, meta_of

if TYPE_CHECKING:
    from jsonschema_rs import Validator

CALL: Final = "tools/call"
LIST: Final = "tools/list"
CHANGED: Final = "notifications/tools/list_changed"

MAX_TOOLS: Final = 1024
MAX_SCHEMA_BYTES: Final = 256 * 1024
MAX_LISTED_BYTES: Final = 16 * 1024 * 1024
"""Limits for one server: a larger schema is not used, and further tools are not checked."""

MAX_PRINCIPALS: Final = 64
"""Targets and principals whose tools are kept, the most recently used."""

MAX_BACKTRACKS: Final = 100_000
"""Backtracking steps of a pattern on one text."""


@attrs.define
class _Compiled:
    """A schema that is ready to be used, and how many levels a value may have for that."""

    validator: Validator
    greatest_depth: float

    def fault(self, value: object) -> Fault | None:
        if self.greatest_depth < depth_of(value):
            return Fault(
                "", "depth", f"it has more levels than the {self.greatest_depth:g} that its schema is used for"
            )
        return fault_of([self.validator], value)


_Schema: TypeAlias = bytes | _Compiled | UnusableSchema
"""A schema as it was listed, once it was needed, or why it is not used."""


class ToolSchemas:
    """The tools of one server, as they were listed. A schema is compiled when it is needed first."""

    def __init__(self) -> None:
        self._inputs: dict[str, _Schema] = {}
        self._outputs: dict[str, _Schema] = {}
        self._bytes = 0

    def forget(self) -> None:
        self._inputs.clear()
        self._outputs.clear()
        self._bytes = 0

    def listed(self, request: Request, result: object) -> None:
        """Take the answer to a ``tools/list``; one for the first page takes the place of all before."""
        if members_of(request.params).get("cursor") is None:
            self.forget()
        for tool in items_of(members_of(result).get("tools")):
            self._learn(members_of(tool))

    def fault_of_call(self, request: Request) -> Fault | None:
        """The fault of the arguments of a ``tools/call``, if there is one."""
        name = _name(request)
        fault = _fault(self._inputs, name, members_of(request.params).get("arguments", {}))
        return _within("params.arguments", fault)

    def fault_of_result(self, request: Request, result: object) -> Fault | None:
        """The fault of the structured content that a ``tools/call`` has as its last result, if there is one."""
        members, name = members_of(result), _name(request)
        if name not in self._outputs or members.get("isError") is True or not _is_last(request, members):
            return None
        if "structuredContent" not in members:
            return Fault("result.structuredContent", "required", "the tool has an outputSchema")
        return _within("result.structuredContent", _fault(self._outputs, name, members["structuredContent"]))

    def _learn(self, tool: Mapping[str, Any]) -> None:
        name = tool.get("name")
        if not isinstance(name, str) or len(self._inputs) >= MAX_TOOLS:
            return
        for schemas, key in (self._inputs, "inputSchema"), (self._outputs, "outputSchema"):
            if tool.get(key) is not None:
                self._keep(schemas, name, tool[key])

    def _keep(self, schemas: dict[str, _Schema], name: str, schema: object) -> None:
        try:
            encoded = msgspec.json.encode(schema, enc_hook=plain)
        except (TypeError, ValueError, OverflowError, RecursionError):
            schemas[name] = UnusableSchema("it cannot be written as JSON")
            return
        if len(encoded) > MAX_SCHEMA_BYTES:
            schemas[name] = UnusableSchema(f"it has {len(encoded)} bytes, and {MAX_SCHEMA_BYTES} are the limit")
        elif self._bytes + len(encoded) <= MAX_LISTED_BYTES:
            self._bytes += len(encoded)
            schemas[name] = encoded


Served: TypeAlias = OrderedDict[tuple[str, str | None], ToolSchemas]
"""The tools of servers in the modern era, by target and principal: there a connection may be a single request."""


class Tools:
    """The tools of both sides of one connection.

    Args:
        served: The tools that this side serves in the modern era, on all connections.
        scope: The connection.
    """

    def __init__(self, served: Served, scope: Scope) -> None:
        self._served = served
        self._scope = scope
        self._theirs = ToolSchemas()
        self._ours = ToolSchemas()

    def fault(self, message: Message, asked: Request | None, *, ours: bool) -> Fault | None:
        """The fault of a call, or of the answer to one, by the tool's schemas.

        Args:
            message: The call or the answer.
            asked: The request that an answer is for.
            ours: Whether the tool is on this side.
        """
        if isinstance(message, Request) and message.method == CALL:
            return self._of(message, ours).fault_of_call(message)
        if isinstance(message, Response) and asked is not None and asked.method == CALL:
            return self._of(asked, ours).fault_of_result(asked, message.result)
        return None

    def note(self, message: Message, asked: Request | None, *, ours: bool) -> None:
        """Learn from a message that passes; arguments as for :meth:`fault`."""
        if isinstance(message, Response) and asked is not None and asked.method == LIST:
            self._of(asked, ours).listed(asked, message.result)
        elif isinstance(message, Notification) and message.method == CHANGED:
            (self._ours if ours else self._theirs).forget()
            if ours:
                self._served.clear()

    def _of(self, request: Request, ours: bool) -> ToolSchemas:
        if not ours:
            return self._theirs
        if not is_modern(request):
            return self._ours
        key = self._scope.settings.target, self._scope.info.principal
        tools = self._served.setdefault(key, ToolSchemas())
        self._served.move_to_end(key)
        if len(self._served) > MAX_PRINCIPALS:
            self._served.popitem(last=False)
        return tools


def is_modern(request: Request) -> bool:
    """Whether a request is of the modern era: its ``_meta`` names a revision."""
    return VERSION_IN_META in meta_of(request.params)


def _name(request: Request) -> str:
    name = members_of(request.params).get("name")
    return name if isinstance(name, str) else ""


def _is_last(request: Request, result: Mapping[str, Any]) -> bool:
    """Whether a result is the tool's final one: neither a request for input nor a task."""
    return result.get("resultType", "complete") == "complete" and "task" not in {*members_of(request.params), *result}


def _fault(schemas: dict[str, _Schema], name: str, value: object) -> Fault | None:
    schema = schemas.get(name)
    if isinstance(schema, bytes):
        schema = schemas[name] = _compiled(schema)
    if isinstance(schema, UnusableSchema):
        return Fault("", "schema", f"the schema that the tool gives for it cannot be used: {schema}")
    return None if schema is None else schema.fault(value)


def _within(path: str, fault: Fault | None) -> Fault | None:
    return None if fault is None else attrs.evolve(fault, path=f"{path}.{fault.path}".rstrip("."))


def _compiled(encoded: bytes) -> _Compiled | UnusableSchema:
    import jsonschema_rs

    schema = members_of(msgspec.json.decode(encoded))
    patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=MAX_BACKTRACKS)
    try:
        if schema is NOTHING:
            return UnusableSchema("it is no object")
        depth = greatest_depth(schema)
        validator = jsonschema_rs.validator_for(dict(schema), mask=MASK, offline=True, pattern_options=patterns)
    except UnusableSchema as error:
        return error
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        return UnusableSchema(getattr(error, "message", None) or str(error))
    return _Compiled(validator, depth)
