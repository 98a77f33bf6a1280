"""No kind of target shows its secret wherever its description is shown, and the description is the same everywhere."""

from __future__ import annotations

import random
import traceback
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import attrs
import pytest
import trio
from trio.testing import MockClock

from trioxport import (
    Connection,
    ConnectionLost,
    Failover,
    Notification,
    Reconnect,
    Reconnecting,
    Request,
    ServerUnreachable,
    TransportError,
    UsageError,
    open_transport,
    register_scheme,
    serve_transport,
    targets,
)
from trioxport._diagnostics.redaction import redact_url, redact_urls, redact_words
from trioxport._diagnostics.secret_names import is_secret_header, is_secret_name
from trioxport.abc import FrameChannels, Scope
from trioxport.layers import CircuitBreaker
from trioxport.peer import IncomingRequest
from trioxport.targets import describe, options_of
from trioxport.testing import MemoryWire
from trioxport.transports.stdio import Stdio

SECRET = "s3cr3tQx"


@attrs.frozen
class Broker:
    """A config object of another author's, which shows all that it has."""

    user: str
    password: str
    works: bool = True

    @classmethod
    def from_url(cls, url: str) -> Self:
        if "refuse" in url:
            raise UsageError("a broker's URL is written otherwise")
        return cls("ann", SECRET, works="works" in url)

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        if not self.works:
            raise ServerUnreachable("nobody is there")
        async with MemoryWire(4).client(scope) as channels, trio.open_nursery() as nursery:
            nursery.start_soon(self._break, scope)
            yield channels
            nursery.cancel_scope.cancel()

    async def _break(self, scope: Scope) -> None:
        with trio.move_on_after(1):
            await trio.sleep_forever()
        raise RuntimeError(f"cannot go on with leaky://ann:{SECRET}@host/x?token={SECRET}")


@dataclass
class Plain:
    password: str = SECRET

    def __call__(self, scope: Scope) -> Any:
        return Broker("ann", self.password)(scope)


@dataclass
class Told:
    """One that quotes its URL."""

    url: str

    def __str__(self) -> str:
        return f"told {self.url}"

    def __call__(self, scope: Scope) -> Any:
        return Broker("ann", SECRET)(scope)


def opened(password: str, scope: Scope) -> Any:
    return Broker("ann", password)(scope)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_registered", {})
    register_scheme("leaky", Broker.from_url)


PLACES = [
    "leaky://ann:SECRET@HOST/x",
    "leaky://SECRET@HOST/x",
    "leaky://:SECRET@HOST",
    "leaky://ann:a/SECRET@HOST",
    "leaky://ann:a?SECRET@HOST",
    "leaky://ann:a#SECRET@HOST",
    "leaky://ann:a@b/SECRET@HOST",
    "leaky://[::1:SECRET@HOST/",
    "leaky://[ann:SECRET@HOST]/",
    "leaky://[::1]:SECRET@HOST/",
    "leaky://[::1:a/SECRET@HOST/",
    "leaky://a]b:SECRET@HOST/",
    "leaky:ann:SECRET@HOST",
    "leaky://HOST/x#SECRET",
    "leaky://HOST/x?a=1;token=SECRET",
    "leaky://HOST/x?to=https%3A%2F%2Fann%3ASECRET%40h%2F",
    "leaky://HOST/x;jsessionid=SECRET?a=1",
    *(
        f"leaky://HOST/x?a=1&{name}=SECRET&b=2"
        for name in (
            *("jwt", "code", "session", "sid", "otp", "pin", "ticket", "assertion", "hmac", "state", "key", "api_key"),
            *("access_token", "password", "authCode", "session_id", "SID", "X-Amz-Signature", "s%69g", "sessionId"),
        )
    ),
]


def urls(host: str) -> list[str]:
    return [place.replace("SECRET", SECRET).replace("HOST", host) for place in PLACES]


def objects(*, works: bool) -> dict[str, Any]:
    broker, host = Broker("ann", SECRET, works), "works" if works else "fails"
    return {
        "attrs": broker,
        "partial": partial(opened, SECRET) if works else partial(_fails, SECRET),
        "dataclass": Plain() if works else partial(_fails, SECRET),
        "own str": Told(f"leaky://ann:{SECRET}@host/x?jwt={SECRET}"),
        "guarded": CircuitBreaker().guard(broker),
        "failover of a failover": Failover([Failover([broker, f"leaky://ann:{SECRET}@{host}"])]),
        "reconnecting": Reconnecting(broker, Reconnect(attempts=1)),
    }


OBJECTS = [
    *("attrs", "partial", "dataclass", "own str", "guarded"),
    *("failover of a failover", "reconnecting"),
]


def _fails(password: str, scope: Scope) -> Any:
    return Broker("ann", password, works=False)(scope)


def shown(error: BaseException | None) -> Iterator[str]:
    """All texts of an error and of what it came from."""
    while error is not None:
        yield f"{error} {error!r} {getattr(error, 'target', '')} {getattr(error, 'hint', '')}"
        yield from (line for line in traceback.format_exception_only(error))
        error = error.__cause__ if isinstance(error.__cause__, TransportError) else None


Way = Callable[[Any], Any]
WAYS: dict[str, Way] = {
    "plain": lambda target: (target, {}),
    "reconnect": lambda target: (target, {"reconnect": Reconnect(attempts=1, random=random.Random(1))}),
    "failover": lambda target: (Failover([target]), {}),
    "failover that comes back": lambda target: (Failover([target]), {"reconnect": Reconnect(attempts=1)}),
    "reconnecting": lambda target: (Reconnecting(target, Reconnect(attempts=1, retry_first=True)), {}),
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@each_way
@pytest.mark.parametrize(
    "url", [*urls("fails"), *urls("refuse"), *(url.replace("leaky", "unknown") for url in urls("h"))]
)
async def test_a_url_that_does_not_open(
    url: str, way: Way, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(0)
    with pytest.raises(TransportError) as caught:  # noqa: PT012 (making the target may raise, too)
        target, options = way(url)
        assert target is url or SECRET not in f"{target} {target!r}"
        assert describe(target) == redact_url(url)
        async with open_transport(target, **options):
            pytest.fail("it opened")
    assert not [text for text in shown(caught.value) if SECRET in text]
    assert SECRET not in caplog.text
    assert caught.value.target == redact_url(url)


@each_way
@pytest.mark.parametrize("url", urls("works"))
async def test_a_url_that_opens_and_is_lost(
    url: str, way: Way, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(0)
    target, options = way(url)
    async with open_transport(target, **options) as connection:
        await check_names(connection, redact_url(url))
    assert SECRET not in caplog.text


@each_way
@pytest.mark.parametrize("name", OBJECTS)
async def test_an_object_that_opens_and_is_lost(
    name: str, way: Way, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(0)
    target, options = way(objects(works=True)[name])
    assert SECRET not in describe(target)
    async with open_transport(target, **options) as connection:
        await check_names(connection, None)
    assert SECRET not in caplog.text


async def check_names(connection: Connection, name: str | None) -> None:
    assert SECRET not in f"{connection!r} {connection.info!r} {connection.scope.settings.target} {connection.state}"
    if name is not None:
        assert {connection.info.target, connection.scope.settings.target} == {name}
    await connection.tx.send(Request(1, "x"))
    with pytest.raises(ConnectionLost) as caught:  # noqa: PT012 (several messages come before)
        while True:
            message = await connection.rx.receive()
            assert SECRET not in f"{message!r}"
    assert not [text for text in shown(caught.value) if SECRET in text]
    if name is not None:
        assert caught.value.target == name
    with pytest.raises(ConnectionLost) as refused:
        await connection.tx.send(Notification("x"))
    assert not [text for text in shown(refused.value) if SECRET in text]


@each_way
@pytest.mark.parametrize("name", ["attrs", "partial", "guarded", "failover of a failover", "reconnecting"])
async def test_an_object_that_does_not_open(
    name: str, way: Way, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(0)
    target, options = way(objects(works=False)[name])
    with pytest.raises(TransportError) as caught:
        async with open_transport(target, **options):
            pytest.fail("it opened")
    assert not [text for text in shown(caught.value) if SECRET in text]
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "wrap", [Failover, lambda targets: Reconnecting(targets[0]), lambda targets: Reconnecting(Failover(targets))]
)
def test_a_target_inside_of_another_is_shown_by_its_name(wrap: Callable[[list[Any]], Any]) -> None:
    for target in [*urls("h"), *objects(works=True).values()]:
        made = wrap([target])
        assert str(made) == describe(target)
        assert SECRET not in f"{made} {made!r}"


async def test_a_target_that_cannot_be_served_is_named_without_it() -> None:
    for url in urls("works"):
        with pytest.raises(UsageError) as caught:
            await serve_transport(pytest.fail, url)  # type: ignore[arg-type]  # it is never called
        assert caught.value.target == redact_url(url)
        assert not [text for text in shown(caught.value) if SECRET in text]


def test_an_option_that_is_unfit_is_not_quoted_if_it_is_a_secret() -> None:
    @attrs.frozen
    class Options:
        pin: int = 0
        size: int = 0

    with pytest.raises(UsageError, match=r"pin: \*\*\* is not a value of type int; size: 'big'") as caught:
        options_of(f"x://h?pin={SECRET}&size=big", Options)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "args",
    [
        ["--token", SECRET],
        [f"--token={SECRET}"],
        ["--auth-code", SECRET],
        ["-e", f"API_KEY={SECRET}"],
        ["--header", f"X-Session: {SECRET}"],
        [f'{{"jwt": "{SECRET}"}}'],
        [f"http://h,redis://u:{SECRET}@h"],
        [f"redis://u:a://{SECRET}@h"],
        [f"--url=https://h/?sid={SECRET}"],
    ],
)
def test_the_arguments_of_a_command(args: list[str]) -> None:
    command = Stdio("server", ["--port", "3", *args, "--verbose"], env={"TOKEN": SECRET})
    for text in (str(command), repr(command), describe(command)):
        assert SECRET not in text
        assert all(word in text for word in ("--port", "3", "--verbose"))
    assert SECRET not in repr(Failover([command]))


def test_values_that_are_no_secrets_stay_visible() -> None:
    words = [
        "npx",
        "-y",
        "@scope/pkg@1.2",
        "--encode",
        "utf-8",
        "--mode=pinned",
        "--statement",
        "x",
        "--keyboard",
        "us",
    ]
    assert redact_words(words) == words
    for url in (
        "https://h:8080/@scope/p@1?q=a@b",
        "https://[::1]:80/@x",
        "https://h/x?country=de&mode=pinned&statement=1;b=2",
        "https://h/x;v=1/y",
        "tcp://h:0",
    ):
        assert redact_url(url) == url


def test_a_text_that_quotes_a_url() -> None:
    text = f"cannot parse 'leaky://ann:{SECRET}@h/x', nor https://h/?jwt={SECRET} (why?)"
    assert redact_urls(text) == "cannot parse 'leaky://ann:***@h/x', nor https://h/?jwt=*** (why?)"


@pytest.mark.parametrize(
    "name", ["Authorization", "cookie", "X-Api-Key", "x-auth-token", "X-Secret", "X-Amz-Signature"]
)
def test_headers_that_hold_a_secret(name: str) -> None:
    assert is_secret_header(name)


@pytest.mark.parametrize(
    "name", ["Accept", "Idempotency-Key", "Mcp-Session-Id", "X-Auth-Request-User", "Sec-WebSocket-Key", "Host"]
)
def test_headers_that_hold_none(name: str) -> None:
    assert not is_secret_header(name)


@pytest.mark.parametrize("name", ["author_name", "authCode", "SessionID", "s_id_token"])
def test_names_that_may_hold_a_secret(name: str) -> None:
    assert is_secret_name(name)


def test_an_incoming_request_does_not_show_its_headers() -> None:
    peer: Any = None
    metadata = {"headers": {"x-api-key": SECRET, "accept": "x"}, "related_request": 3}
    text = repr(IncomingRequest(1, "x", {}, metadata, peer))
    assert SECRET not in text
    assert "related_request" in text
