"""Validation of messages by JSON-RPC, by a revision of MCP and by the schemas of tools, in both directions."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, ClassVar, Final, Literal, cast

import attrs
import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport.abc import MessageChannels, Scope
from trioxport.errors import ProtocolViolation, TransportError, UsageError
from trioxport.layers._schema import Fault, RevisionSchema, Schema
from trioxport.layers._tool_schemas import Served, Tools, ToolSchemas, is_modern
from trioxport.messages import (
    NOTHING,
    ErrorResponse,
    Incoming,
    Message,
    Notification,
    Request,
    RequestId,
    Response,
    Undelivered,
)
from trioxport.protocol import INVALID_PARAMS, META, cancelled_id, meta_of

MAX_PENDING: Final = 4096
"""Requests in flight that are kept in each direction; answers to the oldest beyond pass unchecked."""


def _has_the_extra() -> bool:
    return find_spec("jsonschema_rs") is not None


def _needs_the_extra(_layer: Validation, _field: attrs.Attribute[bool], tools: bool) -> None:
    if tools and not _has_the_extra():
        raise UsageError("jsonschema-rs is not installed", hint="Install trioxport[validation], or say tools=False")


def _compiled(schemas: Mapping[str, Schema]) -> dict[str, RevisionSchema]:
    return {revision: RevisionSchema(schema) for revision, schema in schemas.items()}


@attrs.frozen(eq=False)
class Validation:
    """Refuses invalid messages, and names the path and the rule that they break.

    Every message is checked by the shape that JSON-RPC 2.0 and MCP demand: a method is a text, parameters and results
    are objects, an error has an integer code and a message. With the schema of a revision, the parameters and results
    of its methods are checked too; methods of extensions pass.

    The arguments of a tool are checked by its ``inputSchema``, and its structured results by its ``outputSchema``, from
    the answer to ``tools/list`` until ``notifications/tools/list_changed``: on the same connection, or, on a server in
    the modern era, on any connection of the same principal. A schema is JSON Schema 2020-12 unless its ``$schema``
    names draft 4, 6, 7 or 2019-09. Its references may point into itself only, as ``#/$defs/...``; its size, its
    patterns and the cost of checking by it are bounded. Calls of a tool whose schema cannot be used are refused.

    ===================== =====================================================================
    invalid               treatment
    ===================== =====================================================================
    sent                  ``send`` raises ``UsageError``
    response received     an ``Undelivered`` by a ``ProtocolViolation``, of an unknown outcome
    request received      is answered here by the error -32602; the application does not see it
    arguments received    are answered here by a result with ``isError``, for the model that chose them
    notification received is discarded and counted
    ===================== =====================================================================

    None of these contains a value of the message, which may be secret.

    Args:
        schemas: The ``schema.json`` of the specification by revision, as a file or as its contents; needs the extra
            ``validation``. The revision of a message is the one in its ``_meta``, else that of ``connection.info``,
            else, while that is not known, the only one in ``schemas``. Messages of a revision that is not in
            ``schemas`` are checked by shape alone. Schemas are compiled once, when the layer is made.
        tools: Whether calls are checked by the schemas of the tools. By default, if the extra is installed.

    Raises:
        UsageError: A schema cannot be used, or the extra is not installed.

    Specification 2026-07-28, server/tools, and basic/index, section JSON Schema Usage.
    """

    level: ClassVar[Literal["message"]] = "message"

    schemas: Mapping[str, RevisionSchema] = attrs.field(
        default=NOTHING, converter=_compiled, repr=lambda schemas: str(list(schemas))
    )
    tools: bool = attrs.field(factory=_has_the_extra, validator=_needs_the_extra, kw_only=True)
    _served: Served = attrs.field(factory=OrderedDict[Any, ToolSchemas], init=False, repr=False)

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        checks = _Checks(self.schemas, scope, Tools(self._served, scope) if self.tools else None)
        return MessageChannels(
            _ValidatingSend(channels.send, checks), _ValidatingReceive(channels.receive, channels.send, checks, scope)
        )


class _Checks:
    """The checks of one connection's messages, and its requests in flight."""

    def __init__(self, schemas: Mapping[str, RevisionSchema], scope: Scope, tools: Tools | None) -> None:
        self._schemas = schemas
        self._scope = scope
        self._tools = tools
        self.sent: OrderedDict[RequestId, Request] = OrderedDict()
        self.received: OrderedDict[RequestId, Request] = OrderedDict()

    def fault(self, message: Message, asked: Request | None) -> Fault | None:
        """The fault of a message; ``asked``: the request that it answers."""
        found = _fault_of_shape(message)
        if found is not None or isinstance(message, ErrorResponse):
            return found
        if isinstance(message, Response):
            schema = None if asked is None else self._schema(asked)
            return None if schema is None or asked is None else schema.fault_of_result(asked, message.result)
        schema = self._schema(message)
        return None if schema is None else schema.fault_of_call(message)

    def fault_by_tool(self, message: Message, asked: Request | None, *, received: bool) -> Fault | None:
        """The fault of a message by the schemas of the tool that it is about."""
        if self._tools is None:
            return None
        return self._tools.fault(message, asked, ours=received is isinstance(message, Request))

    def passed(self, message: Message, asked: Request | None, *, received: bool) -> None:
        """Learn from a valid message about the tools."""
        if self._tools is not None:
            self._tools.note(message, asked, ours=received is isinstance(message, Request))

    def _schema(self, message: Request | Notification) -> RevisionSchema | None:
        revision = meta_of(message.params).get(META + "protocolVersion") or self._scope.info.protocol_version
        if isinstance(revision, str):
            return self._schemas.get(revision)
        return next(iter(self._schemas.values())) if len(self._schemas) == 1 else None


def _fault_of_shape(message: Message) -> Fault | None:
    match message:
        case Request() | Notification():
            if not _is_text(message.method):
                return Fault("method", "shape", "it is not a text")
            if message.params is not None and not isinstance(message.params, Mapping):
                return Fault("params", "shape", "it is not an object")
        case ErrorResponse(code=code, message=text):
            if type(code) is not int or not _is_text(text):
                return Fault("error", "shape", "it has no integer code, or no message")
        case _:
            if not isinstance(message.result, Mapping):
                return Fault("result", "shape", "it is not an object")
    return None


def _refusal(request: Request, fault: Fault) -> Response:
    """The answer to arguments that break the tool's schema: a tool's error, which the model can correct.

    Specification 2026-07-28, server/tools, section Error Handling.
    """
    result = {"content": [{"type": "text", "text": f"The arguments are not valid: {fault}"}], "isError": True}
    return Response(request.id, {"resultType": "complete", **result} if is_modern(request) else result)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _remember(requests: OrderedDict[RequestId, Request], request: Request) -> None:
    requests[request.id] = request
    if len(requests) > MAX_PENDING:
        requests.popitem(last=False)


def _named_by(requests: OrderedDict[RequestId, Request], message: Message) -> Request | None:
    """The request that ``message`` cancels, or None."""
    request_id = cancelled_id(message)
    return None if request_id is None else requests.get(request_id)


def _forget(requests: OrderedDict[RequestId, Request], request: Request | None) -> None:
    """Forget a request, unless its id is that of another one by now."""
    if request is not None and requests.get(request.id) is request:
        del requests[request.id]


class _ValidatingSend(SendChannel[Message]):
    def __init__(self, inner: SendChannel[Message], checks: _Checks) -> None:
        self._inner = inner
        self._checks = checks

    async def send(self, value: Message) -> None:
        if not isinstance(cast("object", value), Message):
            return await self._inner.send(value)  # the codec refuses it
        checks = self._checks
        asked = None
        if isinstance(value, Response | ErrorResponse) and value.id is not None:
            asked = checks.received.get(value.id)
        fault = checks.fault(value, asked) or checks.fault_by_tool(value, asked, received=False)
        if fault is not None:
            raise UsageError(f"the message is not valid: {fault}")
        begun = value if isinstance(value, Request) and value.id not in checks.sent else None
        if begun is not None:
            _remember(checks.sent, begun)
        cancelled = _named_by(checks.sent, value)
        try:
            await self._inner.send(value)
        except BaseException:
            _forget(checks.sent, begun)
            raise
        _forget(checks.received, asked)
        checks.passed(value, asked, received=False)
        _forget(checks.sent, cancelled)
        return None

    async def aclose(self) -> None:
        await self._inner.aclose()


class _ValidatingReceive(ReceiveChannel[Incoming]):
    def __init__(
        self, inner: ReceiveChannel[Incoming], answers: SendChannel[Message], checks: _Checks, scope: Scope
    ) -> None:
        self._inner = inner
        self._answers = answers
        self._checks = checks
        self._scope = scope
        self._refusals: deque[Response | ErrorResponse] = deque()

    async def receive(self) -> Incoming:
        while True:
            while self._refusals:
                await self._refuse(self._refusals.popleft())
            message = self._accept(await self._inner.receive())
            if message is not None:
                return message

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _accept(self, message: Incoming) -> Incoming | None:
        """The message for the application; None for one that is refused here."""
        checks = self._checks
        asked = None
        if isinstance(message, Response | ErrorResponse):
            asked = None if message.id is None else checks.sent.pop(message.id, None)
            if isinstance(message, Undelivered) or (asked is None and message.id is not None):  # one is too old
                return message
        fault = checks.fault(message, asked)
        if fault is not None:
            return self._settle(message, asked, fault)
        fault = checks.fault_by_tool(message, asked, received=True)
        if fault is not None:
            if not isinstance(message, Request):
                return self._settle(message, asked, fault)
            self._refusals.append(_refusal(message, fault))
            return None
        if isinstance(message, Request):
            _remember(checks.received, message)
        checks.passed(message, asked, received=True)
        _forget(checks.received, _named_by(checks.received, message))
        return message

    def _settle(self, message: Message, asked: Request | None, fault: Fault) -> Undelivered | None:
        error = ProtocolViolation(f"what the peer sent is not valid: {fault}", target=self._scope.settings.target)
        if isinstance(message, Request):
            text = f"Invalid params: {fault}"
            data = {"path": fault.path, "rule": fault.rule}
            self._refusals.append(ErrorResponse(message.id, INVALID_PARAMS, text, data))
        else:
            self._scope.discard(error)
        return None if asked is None else Undelivered.of(asked, error)

    async def _refuse(self, answer: Response | ErrorResponse) -> None:
        """Answer an invalid request before the next message is taken, which bounds the refusals that wait."""
        try:
            with suppress(TransportError, trio.BrokenResourceError, trio.ClosedResourceError):
                await self._answers.send(answer)
        except trio.Cancelled:
            self._refusals.appendleft(answer)
            raise
