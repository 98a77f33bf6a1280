"""Arguments of tools and methods as words: what they become, and what is said of those that fit nothing."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from trioxport import UsageError
from trioxport.cli._schemas import arguments_of, convert, signature
from trioxport.cli._words import parse_words, split_line

SCHEMA: Final[dict[str, Any]] = {
    "$defs": {"Place": {"type": "object", "properties": {"city": {"type": "string"}, "zip": {"type": "integer"}}}},
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "exact": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "level": {"enum": ["low", "high", 3]},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "either": {"type": ["string", "null"]},
        "place": {"$ref": "#/$defs/Place"},
        "free": {},
        "fixed": {"const": "on"},
    },
    "required": ["text"],
}


def arguments(*words: str) -> dict[str, Any]:
    return arguments_of("search", SCHEMA, parse_words("search", words).pairs)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["text=007"], {"text": "007"}),
        (["text=a=b c"], {"text": "a=b c"}),
        (["text="], {"text": ""}),
        (["text=x", "count=3"], {"text": "x", "count": 3}),
        (["text=x", "count=3.0"], {"text": "x", "count": 3}),
        (["text=x", "ratio=1e-3"], {"text": "x", "ratio": 0.001}),
        (["text=x", "exact=true"], {"text": "x", "exact": True}),
        (["text=x", "tags=a", "tags=b"], {"text": "x", "tags": ["a", "b"]}),
        (["text=x", 'tags=["a"]', "tags:=[1]"], {"text": "x", "tags": ["a", 1]}),
        (["text=x", "level=high"], {"text": "x", "level": "high"}),
        (["text=x", "level=3"], {"text": "x", "level": 3}),
        (["text=x", "maybe=null"], {"text": "x", "maybe": None}),
        (["text=x", "either=null"], {"text": "x", "either": "null"}),
        (["text=x", "place.city=Bonn", "place.zip=5"], {"text": "x", "place": {"city": "Bonn", "zip": 5}}),
        (["text=x", 'place={"city": "Bonn"}'], {"text": "x", "place": {"city": "Bonn"}}),
        (["text=x", "free=1"], {"text": "x", "free": 1}),
        (["text=x", "free=one"], {"text": "x", "free": "one"}),
        (["text=x", "free=NaN"], {"text": "x", "free": "NaN"}),
        (["text:=null"], {"text": None}),
    ],
)
def test_words_become_what_the_schema_asks_for(words: list[str], meant: dict[str, Any]) -> None:
    found = arguments(*words)
    assert (found, json.dumps(found)) == (meant, json.dumps(meant))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "the tool 'search' needs text: string. Its arguments: text: string, count?: integer"),
        (["txt=x"], "the tool 'search' has no argument 'txt'. Did you mean 'text'? Its arguments:"),
        (["text=x", "count=many"], "the argument 'count' takes integer, not 'many'"),
        (["text=x", "count=1.5"], "the argument 'count' takes integer, not '1.5'"),
        (["text=x", "count=Infinity"], "takes integer, not 'Infinity'"),
        (["text=x", "count=" + "9" * 99 + "x"], "9..."),
        (["text=x", "level=hgh"], "takes \"low\"|\"high\"|3, not 'hgh'. Did you mean 'high'?"),
        (["text=x", "text=y"], "the argument 'text' is given twice, and is no array"),
        (["text=x", "free:={"], "the value of 'free' is not JSON"),
        (["text=x", "place:=1", "place.city=Bonn"], "'place.city' is a member of 'place', which has a value already"),
        (["text=x", "place.town=Bonn"], "has no argument 'town'. Its arguments"),
        (["text"], "the argument 'text' cannot be understood. Write NAME=VALUE, NAME:=JSON"),
    ],
)
def test_words_that_fit_nothing_are_explained(words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as failure:
        arguments(*words)
    assert text in str(failure.value)


def test_a_tool_may_take_any_arguments() -> None:
    assert arguments_of("x", {}, parse_words("x", ["a=1", "b.c=d"]).pairs) == {"a": 1, "b.c": "d"}
    is_open = {"properties": {"a": {"type": "string"}}, "additionalProperties": {}}
    assert arguments_of("x", is_open, parse_words("x", ["a=1", "b=1"]).pairs) == {"a": "1", "b": 1}
    with pytest.raises(UsageError, match="Its arguments: none"):
        arguments_of("x", {"additionalProperties": False}, parse_words("x", ["a=1"]).pairs)


def test_the_short_form_of_a_schema() -> None:
    assert signature(SCHEMA) == (
        'text: string, count?: integer, ratio?: number, exact?: boolean, tags?: string[], level?: "low"|"high"|3, '
        'maybe?: integer|null, either?: string|null, place?: object, free?: any, fixed?: "on"'
    )


def test_a_schema_that_refers_to_itself_has_an_end() -> None:
    loop = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "properties": {"x": {"$ref": "#/$defs/a"}}}
    assert signature(loop) == "x?: any"
    assert convert(loop, "x", "1", loop["properties"]["x"]) == 1


def test_the_parameters_of_a_method_are_texts_with_members() -> None:
    words = parse_words("prompts/get", ["name=review", "arguments.count=3", "arguments.extra:=[1]"])
    assert words.nested() == {"name": "review", "arguments": {"count": "3", "extra": [1]}}
    assert parse_words("tools/list", []).nested() is None
    assert parse_words("x/y", ['{"a": 1}']).nested() == {"a": 1}
    with pytest.raises(UsageError, match="which has a value already"):
        parse_words("x/y", ["a=1", "a.b=2"]).nested()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("add a=1 b=2\n", ["add", "a=1", "b=2"]),
        ("echo text='two words'", ["echo", "text=two words"]),
        ('echo {"text": "two words"}', ["echo", '{"text": "two words"}']),
        ('x a:={"b": [1, 2]} c=3', ["x", 'a:={"b": [1, 2]}', "c=3"]),
        ("x a:=[1, 2]", ["x", "a:=[1, 2]"]),
        ("x text='see {this}'", ["x", "text=see {this}"]),
        ("x text=' {\"a\": 1} '", ["x", 'text= {"a": 1} ']),
        ("x {oops", ["x", "{oops"]),
        ("", []),
    ],
)
def test_a_line_is_split_as_in_a_shell_but_json_needs_no_quotes(line: str, words: list[str]) -> None:
    assert split_line(line) == words


def test_a_quote_that_is_not_closed() -> None:
    with pytest.raises(UsageError, match="Close the quote"):
        split_line("echo text='one")
