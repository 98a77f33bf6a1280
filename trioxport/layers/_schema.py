"""The JSON schema of one revision of MCP, by method: what is wrong with a call, or with a result.

Revisions since 2026-07-28 define each whole response, those before only the results, some of which are empty.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
import msgspec

from trioxport._diagnostics.hints import install_hint
from trioxport.codecs.jsonrpc import VERSION, plain
from trioxport.errors import UsageError
from trioxport.messages import Notification, Request
from trioxport.protocol import members_of

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator, ValidatorMap

Schema: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
"""A ``schema.json`` of the specification: its file, or what is in it."""

_TOP: Final = "the message itself"
MASK: Final = "it"
"""The placeholder for a value in an error: values may be secret."""


@attrs.frozen
class Fault:
    """A fault of a message.

    Args:
        path: Where, as ``params.arguments``.
        rule: The keyword of the schema that does not hold, as ``required``, or ``shape`` where there is no schema.
        reason: More about it, without any value of the message.
    """

    path: str
    rule: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path or _TOP} breaks the rule {self.rule}: {self.reason}"


class RevisionSchema:
    """The validators of one revision, compiled once.

    Raises:
        UsageError: The schema cannot be read or is none of MCP, or the extra ``validation`` is not installed.
    """

    def __init__(self, schema: Schema) -> None:
        whole = _read(schema)
        key = "$defs" if "$defs" in whole else "definitions"
        definitions = members_of(whole.get(key))
        compiled = _compiled(whole)
        self._calls: dict[str, Validator] = {}
        self._results: dict[str, Validator] = {}
        self._task: Validator | None = compiled.get(f"#/{key}/CreateTaskResult")
        for name, definition in definitions.items():
            method = _constant(definition, "method")
            if not isinstance(method, str):
                continue
            self._calls[method] = compiled[f"#/{key}/{name}"]
            stem = name.removesuffix("Request")
            pointers = (f"{stem}ResultResponse/properties/result", f"{stem}Result", "EmptyResult")
            found = next((pointer for pointer in pointers if f"#/{key}/{pointer}" in compiled), None)
            if found is not None and stem != name:
                self._results[method] = compiled[f"#/{key}/{found}"]
        if not self._calls:
            raise UsageError("the schema defines no method", hint="Use a schema.json of the MCP specification")

    @property
    def methods(self) -> Set[str]:
        """The requests and notifications of the revision."""
        return self._calls.keys()

    def fault_of_call(self, message: Request | Notification) -> Fault | None:
        """The fault of a request or a notification; None for a method that the revision does not have."""
        validator = self._calls.get(message.method)
        if validator is None:
            return None
        envelope: dict[str, Any] = {"jsonrpc": VERSION, "method": message.method}
        if isinstance(message, Request):
            envelope["id"] = message.id
        if message.params is not None:
            envelope["params"] = message.params
        return fault_of([validator], envelope)

    def fault_of_result(self, request: Request, result: object) -> Fault | None:
        """The fault of the result of a request; a request for a task may be answered by the task."""
        validator = self._results.get(request.method)
        if validator is None:
            return None
        validators = [validator]
        if self._task is not None and "task" in members_of(request.params):
            validators.append(self._task)
        found = fault_of(validators, result)
        return None if found is None else attrs.evolve(found, path=f"result.{found.path}".rstrip("."))


def fault_of(validators: list[Validator], instance: object) -> Fault | None:
    """The fault that the first validator finds, if no validator accepts the value.

    A value that validators do not take is a fault too: a lone surrogate or no text as a name, or too many levels.
    """
    try:
        return _found(validators, instance)
    except ValueError:  # there may be mappings other than dicts
        pass
    try:
        return _found(validators, msgspec.to_builtins(instance, enc_hook=plain))
    except (TypeError, ValueError, RecursionError):
        return Fault("", "shape", "a schema cannot be applied to it")


def _found(validators: list[Validator], instance: object) -> Fault | None:
    if any(validator.is_valid(instance) for validator in validators):
        return None
    return next((_told(error) for error in validators[0].iter_errors(instance)), None)


def _told(error: ValidationError) -> Fault:
    """A fault; where one of several schemas should hold, that of the one which is nearest to holding."""
    while branches := [branch for branch in getattr(error.kind, "context", ()) if branch]:
        error = min(branches, key=len)[0]
    path = ".".join(map(str, error.instance_path))
    return Fault(path, str(error.schema_path[-1]), error.message)


def _read(schema: Schema) -> Mapping[str, Any]:
    if isinstance(schema, Mapping):
        return schema
    try:
        with open(schema, encoding="utf-8") as file:
            return members_of(json.load(file))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the schema {os.fspath(schema)!r}: {error}") from error


def _constant(definition: object, name: str) -> object:
    return members_of(members_of(members_of(definition).get("properties")).get(name)).get("const")


def _compiled(schema: Mapping[str, Any]) -> ValidatorMap:
    try:
        import jsonschema_rs
    except ImportError as error:
        raise UsageError("jsonschema-rs is not installed", hint=install_hint("validation")) from error
    try:
        return jsonschema_rs.validator_map_for(dict(schema), mask=MASK, offline=True)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        raise UsageError(f"the schema cannot be compiled: {error}") from error
