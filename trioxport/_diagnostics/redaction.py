"""Redaction of targets, commands and headers: everything is shown except values that are, or may be, credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final
from urllib.parse import unquote

from trioxport._diagnostics.secret_names import is_secret_header, is_secret_name
from trioxport.messages import HIDDEN

_NAMED_VALUE: Final = r"""([A-Za-z_][\w.-]{0,64})["']?\s{0,8}[=:]"""
_ADDRESS: Final = r"(?:\[[^\[\]]*\]|[^:\[\]]*)(?::\d*)?\Z"
_MEMBER: Final = r"(?:^|;)([^=;]*)="
_PATH_PARAMETER: Final = r";(?P<name>[^=;/]*)=[^;/]*"


class Headers(dict[str, str]):
    """Headers by name; the ``repr`` hides the values of those that may hold a secret."""

    @cached_property
    def encoded(self) -> Sequence[tuple[bytes, bytes]]:
        """The headers as ASGI has them; those of a request are never changed."""
        return encoded(self)

    def __repr__(self) -> str:
        return repr({name: HIDDEN if is_secret_header(name) else value for name, value in self.items()})


def encoded(headers: Mapping[str, str]) -> Sequence[tuple[bytes, bytes]]:
    """Headers as ASGI has them."""
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def redact_url(url: str) -> str:
    """The URL without credentials: user information, and query members that are named like a secret, are hidden.

    It takes any text, so that an error can show an invalid URL as well.
    """
    scheme, colon, rest = url.partition(":")
    if scheme.lower() in ("stdio", "http+stdio") or not colon:
        return scheme + colon + _redact_command_line(rest) if colon else _redact_command_line(url)
    slashes = "//" if rest.startswith("//") else ""
    rest = _redact_userinfo(rest.removeprefix("//"))
    address, mark, fragment = rest.partition("#")
    shown = f"{scheme}:{slashes}{_redact_path(address)}"
    return shown + mark + _redact_path(fragment) if scheme.lower().endswith("+unix") else shown


def _redact_path(path: str) -> str:
    """A path with its query; a fragment is one where it is the path of an endpoint on a Unix socket."""
    address, question, query = path.partition("?")
    address = re.sub(_PATH_PARAMETER, _redact_parameter, address)
    return f"{address}{question}{'&'.join(map(_redact_member, query.split('&')))}"


def redact_urls(text: str) -> str:
    """A text with each URL that it quotes redacted as :func:`redact_url` does."""
    return re.sub(r"[A-Za-z][\w.+-]{0,64}://\S*", lambda url: redact_url(url[0]), text)


def redact_command(words: Sequence[str]) -> str:
    """A command line, redacted as by :func:`redact_words`."""
    return " ".join(redact_words(words))


def redact_words(words: Sequence[str]) -> list[str]:
    """The words of a command without the values of options that are named like a secret, and passwords in URLs."""
    shown: list[str] = []
    hide_next = False
    for word in words:
        end = _secret_value(word)
        shown.append(HIDDEN if hide_next else _redact_urls_in_word(word) if end is None else word[:end] + HIDDEN)
        hide_next = not hide_next and end is None and word.startswith("-") and is_secret_name(word)
    return shown


def _redact_command_line(command: str) -> str:
    import shlex

    try:
        return redact_command(shlex.split(command))
    except ValueError:  # an unclosed quote: the end of a secret is unknown
        return f"{redact_command(command.split(maxsplit=1)[:1])} {HIDDEN}"


def _secret_value(word: str) -> int | None:
    """The start of the value behind a secret's name in a word (``API_KEY=``, ``Authorization:`` ...), or None."""
    ends = (named.end() for named in re.finditer(_NAMED_VALUE, word) if is_secret_name(named[1]))
    return next(ends, None)


def _redact_urls_in_word(word: str) -> str:
    before, separator, rest = word.partition("://")
    if not separator:
        return word
    shown = _redact_userinfo(rest)
    return before + separator + (_redact_urls_in_word(rest) if shown == rest else shown)


def _redact_userinfo(rest: str) -> str:
    """A URL behind its scheme without user information, which ends at the last ``@`` before the path, as in browsers.

    A password that is not escaped can contain a ``/``, a ``?`` or a bracket. If another ``@`` follows such a character,
    the end of the password is unknown, and the rest is hidden.
    """
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    behind = rest[len(authority) :]
    info, at, host = authority.rpartition("@")
    if at:
        return _redact_user(info) if "@" in behind else f"{_redact_user(info)}@{host}{behind}"
    return _redact_user(authority) if "@" in behind and not re.match(_ADDRESS, authority) else rest


def _redact_user(info: str) -> str:
    user, colon, _ = info.partition(":")
    return f"{user}:{HIDDEN}" if colon and "[" not in user else HIDDEN


def _redact_member(member: str) -> str:
    for named in re.finditer(_MEMBER, member):
        value = unquote(member[named.end() :])
        if is_secret_name(unquote(named[1])) or ("://" in value and "@" in value):
            return f"{member[: named.end()]}{HIDDEN}"
    return member


def _redact_parameter(parameter: re.Match[str]) -> str:
    return f";{parameter['name']}={HIDDEN}" if is_secret_name(unquote(parameter["name"])) else parameter[0]
