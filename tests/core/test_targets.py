"""Targets: the meaning of URLs, added schemes, and errors, which contain no secrets."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trioxport import TransportError, UsageError, open_transport, register_scheme, targets
from trioxport.abc import FrameChannels, Scope, Transport
from trioxport.targets import describe, known_schemes, options_of, redact_command, redact_url, to_listener, to_transport
from trioxport.transports.memory import Memory
from trioxport.transports.stdio import Stdio, StdioServer
from trioxport.transports.stream import Tcp, Tls, Unix

seeded = settings(derandomize=True, max_examples=100, deadline=None)


@pytest.mark.parametrize(
    ("url", "meaning"),
    [
        ("memory://name", Memory("name")),
        ("tcp://127.0.0.1:80", Tcp("127.0.0.1", 80)),
        ("tcp://localhost:0/", Tcp("localhost", 0)),
        ("TCP://[::1]:9000?framing=length", Tcp("::1", 9000, "length")),
        ("tls://example.com:443", Tls("example.com", 443)),
        (
            "tls://h:1?ca=/a/ca.pem&cert=c%20d.pem&key=k.pem&framing=length",
            Tls("h", 1, "/a/ca.pem", "c d.pem", "k.pem", None, "length"),
        ),
        ("unix:///run/a.sock", Unix("/run/a.sock")),
        ("unix://here.sock", Unix("here.sock")),
        ("unix:here.sock?framing=length", Unix("here.sock", "length")),
        ("unix:///a%20b%3Fc", Unix("/a b?c")),
        ("stdio:python -m 'my server' --x", Stdio("python", ["-m", "my server", "--x"])),
        ("stdio:", StdioServer()),
    ],
)
def test_every_form_of_url(url: str, meaning: object) -> None:
    assert targets._from_url(url) == meaning


@pytest.mark.parametrize(
    "target", [Memory("name"), Tcp("h", 80), Tcp("::1", 80, "length"), Tls("h", 1), Unix("/a b?c#d%e"), Unix("rel")]
)
def test_a_config_object_is_shown_as_a_url_that_means_it(target: Any) -> None:
    assert to_transport(str(target)) == target
    assert describe(target) == str(target)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("tcp://127.0.0.1", "tcp://HOST:PORT"),
        ("tcp://:80", "tcp://HOST:PORT"),
        ("tcp://h:http", "tcp://HOST:PORT"),
        ("tcp://h:70000", "tcp://HOST:PORT"),
        ("tls://h:1/path", "tls://HOST:PORT"),
        ("tcp://[::1", "no valid URL"),
        ("unix://", "unix:///PATH"),
        ("memory://", "memory://NAME"),
        ("memory://a/b", "memory://NAME"),
        ("memory://a?framing=length", "memory://NAME"),
        ("stdio:python 'x", "cannot split the command"),
        ("python server.py", "begins with a scheme and a colon"),
        ("", "begins with a scheme and a colon"),
        (":", "begins with a scheme and a colon"),
        ("gopher://x", "no transport for the scheme 'gopher'"),
        ("tcp://h:1?frame=length", r"unknown option 'frame' \(there is: framing\)"),
        ("tcp://h:1?framing=x", "framing: 'x' is not one of newline, length"),
        ("tls://h:1?a=1&b=2&framing=", "framing: '' is not one of newline, length; unknown option 'a'.*option 'b'"),
    ],
)
async def test_a_url_without_a_meaning_is_a_usage_error(url: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        async with open_transport(url):
            pytest.fail("it opened")
    assert caught.value.target == url or not url or caught.value.target == "stdio:python ***"


def test_an_unknown_scheme_lists_the_known_ones() -> None:
    assert set(known_schemes()) >= {"memory", "stdio", "tcp", "tls", "unix"}
    with pytest.raises(UsageError, match=r"Known schemes: .*memory.*, stdio, .*tcp, tls, unix.*stdio:COMMAND"):
        to_transport("gopher://x")


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("htp://x", "Did you mean http? Known schemes: "),
        ("htps://x", "Did you mean https? "),
        ("127.0.0.1:9102/mcp", "Did you mean http://127.0.0.1:9102/mcp, or tcp://127.0.0.1:9102?"),
        ("localhost:9102", "Did you mean tcp://localhost:9102, or http://localhost:9102/mcp?"),
        ("[::1]:80", "Did you mean tcp://[::1]:80, or http://[::1]:80/mcp?"),
        ("mcp.example.com:443/mcp", "Did you mean https://mcp.example.com:443/mcp, or tcp://mcp.example.com:443?"),
        ("mcp.example.com/mcp", "Did you mean https://mcp.example.com/mcp?"),
        ("/run/mcp.sock", "Did you mean unix:///run/mcp.sock, or stdio:/run/mcp.sock?"),
        ("python server.py", "A command to run is written stdio:python server.py"),
        ("nothing-like-it", "Known schemes: "),
    ],
)
def test_a_similar_target_is_suggested(target: str, advice: str) -> None:
    with pytest.raises(UsageError) as caught:
        to_transport(target)
    assert advice in str(caught.value)


@pytest.mark.parametrize("take", [to_transport, to_listener])
@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        (None, "or a transport, not NoneType"),
        (b"tcp://127.0.0.1:1", "or a transport, not bytes"),
        (Path("server.py"), "or a transport, not PosixPath"),
        (Tcp, r"Tcp is a class, and a target is an object of it: Tcp\(...\)"),
    ],
)
def test_an_object_of_another_kind_is_a_type_error(
    take: Callable[[Any], object], target: object, complaint: str
) -> None:
    with pytest.raises(TypeError, match=complaint):
        take(target)


def test_a_listener_cannot_be_opened_nor_a_transport_served() -> None:
    with pytest.raises(UsageError, match="served, but not opened"):
        to_transport("stdio:")
    with pytest.raises(UsageError, match="opened, but not served"):
        to_listener("stdio:python server.py")


def test_other_types_of_option_are_named_too() -> None:
    @attrs.frozen
    class Options:
        retries: int = 1
        mode: Literal["a", "b"] = "a"

    assert options_of("x://h", Options) == Options()
    assert options_of("x://h?retries=3&mode=b", Options) == Options(3, "b")
    with pytest.raises(UsageError, match="retries: 'three' is not a value of type int"):
        options_of("x://h?retries=three", Options)


# New schemes.


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_registered", {})


@attrs.frozen
class Carrier:
    url: str

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with Memory("carried")(scope) as channels:
            yield channels


@pytest.mark.usefixtures("registry")
def test_a_scheme_registered_in_code_makes_targets() -> None:
    register_scheme("x-carrier", Carrier)
    assert to_transport("x-carrier:anything at all") == Carrier("x-carrier:anything at all")
    assert "x-carrier" in known_schemes()


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("scheme", ["tcp", "stdio", "x-taken"])
def test_a_scheme_that_is_taken_stays_so(scheme: str) -> None:
    register_scheme("x-taken", Carrier)
    with pytest.raises(UsageError, match="is taken"):
        register_scheme(scheme, Carrier)


@pytest.mark.parametrize("scheme", ["", "Upper", "1st", "a b", "a:", "ü"])
def test_a_scheme_has_to_be_spelled_like_one(scheme: str) -> None:
    with pytest.raises(UsageError, match="no URL scheme"):
        register_scheme(scheme, Carrier)


@pytest.mark.usefixtures("registry")
def test_a_factory_that_refuses_its_url_is_a_usage_error_without_its_text() -> None:
    def refuse(url: str) -> Transport:
        raise ValueError(f"cannot read {url}")

    register_scheme("x-refuse", refuse)
    with pytest.raises(UsageError, match="no valid URL") as caught:
        to_transport("x-refuse://user:hunter2@h")
    assert "hunter2" not in str(caught.value)


def install(place: Path, name: str, entry_points: str, **modules: str) -> None:
    """A distribution with a package of the same name."""
    info = place / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[trioxport.transports]\n{entry_points}")
    package = place / name
    package.mkdir()
    for module, code in modules.items():
        (package / f"{module}.py").write_text(code)


PIGEON = """
pigeon = carrier_pigeon:make
owl = carrier_pigeon.owl:make
bat = carrier_pigeon.owl:make [night, far]
tcp = carrier_pigeon:make
gone = carrier_pigeon.gone:make
renamed = carrier_pigeon:made
broken = carrier_pigeon.broken:make
number = carrier_pigeon:NUMBER
raises = carrier_pigeon:raises
without = carrier_pigeon:without
returns = carrier_pigeon:returns
Upper = carrier_pigeon:make
dove = carrier_pigeon:make
"""
CODE = """
NUMBER = 42
def make(url):
    return lambda scope: (url, scope)
def raises(url):
    raise KeyError("no feathers in " + url)
def without():
    pass
def returns(url):
    return 42
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Distributions with entry points: some that work, and one for each mistake."""
    install(
        tmp_path,
        "carrier_pigeon",
        PIGEON,
        __init__=CODE,
        owl="import feathers_that_nobody_installed\n",
        broken="1 / 0\n",
    )
    install(tmp_path, "stray_dove", "dove = stray_dove:make\n", __init__=CODE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.startswith(("carrier_pigeon", "stray_dove"))]:
        del sys.modules[name]


@pytest.mark.usefixtures("installed")
def test_an_installed_distribution_adds_schemes() -> None:
    transport: Any = to_transport("pigeon://loft")
    assert transport("scope") == ("pigeon://loft", "scope")
    assert {"pigeon", "owl", "bat"} <= set(known_schemes())
    assert "Upper" not in known_schemes()
    assert to_transport("tcp://h:1") == Tcp("h", 1)  # what is built in cannot be replaced by accident


@pytest.mark.usefixtures("installed", "registry")
def test_a_scheme_of_an_installed_distribution_is_taken() -> None:
    with pytest.raises(UsageError, match="'pigeon' is taken"):
        register_scheme("pigeon", Carrier)


PIGEONS = r"the entry point {0} = carrier_pigeon{1} of carrier-pigeon "


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("scheme", "reason"),
    [
        ("owl", "needs the module 'feathers_that_nobody_installed'.*Install what has it; carrier-pigeon itself is"),
        ("bat", r"'feathers_that_nobody_installed'.*pip install 'carrier-pigeon\[(night,far|far,night)\]'"),
        ("gone", PIGEONS.format("gone", ".gone:make") + "names the module 'carrier_pigeon.gone', which does not exist"),
        ("renamed", PIGEONS.format("renamed", ":made") + "cannot be loaded: AttributeError.*'made'"),
        ("broken", PIGEONS.format("broken", ".broken:make") + "cannot be loaded: ZeroDivisionError"),
        ("number", PIGEONS.format("number", ":NUMBER") + "is of the type int, which cannot be called with a URL"),
        ("raises", r"the factory of the scheme 'raises' failed: KeyError\('no feathers in raises://a:\*\*\*@b'\)"),
        ("without", "the factory of the scheme 'without' failed: TypeError.*It is called with the URL"),
        (
            "returns",
            "the factory of the scheme 'returns' returned something of the type int, which is no target",
        ),
        ("upper", PIGEONS.format("Upper", ":make") + "is no scheme: one is written in lower case"),
        ("dove", r"'dove' is installed more than once: by .*carrier-pigeon, .*stray-dove.*Uninstall all but one"),
    ],
)
@pytest.mark.parametrize("use", [to_transport, to_listener])
def test_a_mistake_in_a_plug_in_is_a_usage_error_that_names_it(
    scheme: str, reason: str, use: Callable[[str], object]
) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        use(f"{scheme}://a:b@b")
    assert caught.value.target == f"{scheme}://a:***@b"


@pytest.mark.usefixtures("registry")
def test_a_factory_that_finds_fault_with_its_url_need_not_name_it() -> None:
    def refuse(url: str) -> Transport:
        raise UsageError("a pigeon's target is written pigeon://LOFT")

    register_scheme("x-pigeon", refuse)
    with pytest.raises(UsageError, match=r"^x-pigeon://ann:\*\*\*@loft: a pigeon's target"):
        to_transport("x-pigeon://ann:hunter2@loft")


def test_a_built_in_scheme_names_its_own_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(targets._BUILT_IN, "owl", "trioxport.no_such_module:Owl.from_url [owl]")
    with pytest.raises(UsageError, match=r"'trioxport.no_such_module'.*pip install 'trioxport\[owl\]'"):
        to_transport("owl://x")


# Secrets.


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("tcp://127.0.0.1:80", "tcp://127.0.0.1:80"),
        ("https://user:hunter2@h:80/p?x=1#part", "https://user:***@h:80/p?x=1"),
        ("https://:hunter2@h", "https://:***@h"),
        ("https://hunter2@h/p", "https://***@h/p"),
        ("redis://u:hun/t?e#r2@h", "redis://u:***"),
        ("https://h:x/p?token=hun@ter2", "https://h:***"),
        ("tcp:u:hunter2@h", "tcp:u:***@h"),
        ("tcp://u:hunter2@[::1", "tcp://u:***@[::1"),
        ("https://h/a?token=hunter2&x=1&API_KEY=hunter2&key=hunter2", "https://h/a?token=***&x=1&API_KEY=***&key=***"),
        ("https://h/a?to%6Ben=hunter2&sig=hunter2", "https://h/a?to%6Ben=***&sig=***"),
        ("https://h:8080/@scope/p@1?q=a@b", "https://h:8080/@scope/p@1?q=a@b"),
        ("https://[::1]:80/@x", "https://[::1]:80/@x"),
        ("stdio:python s.py --port 3", "stdio:python s.py --port 3"),
        ("stdio:x --token hunter2 --port 3", "stdio:x --token *** --port 3"),
        ("stdio:x --token=hunter2 --port 3", "stdio:x --token=*** --port 3"),
        ("stdio:API_KEY=hunter2 x", "stdio:API_KEY=*** x"),
        ("stdio:docker -e API_KEY=hunter2 --env=DB_PASSWD=hunter2", "stdio:docker -e API_KEY=*** --env=DB_PASSWD=***"),
        ("stdio:x --token 'hun ter2'", "stdio:x --token ***"),
        ("stdio:x --token 'hunter2", "stdio:x ***"),
        ("stdio:token=hunter2' x", "stdio:token=*** ***"),
        ("stdio:x --header 'Authorization: Bearer hunter2'", "stdio:x --header Authorization:***"),
        ("stdio:x --header X-Api-Key:hunter2", "stdio:x --header X-Api-Key:***"),
        ("""stdio:x '{"password" : "hunter2"}'""", 'stdio:x {"password" :***'),
        ("stdio:x postgres://u:hunter2@h/db --n 1", "stdio:x postgres://u:***@h/db --n 1"),
        ("stdio:x --url=redis://:hunter2@h", "stdio:x --url=redis://:***@h"),
        ("stdio:npx -y @scope/pkg@1.2 --design blue", "stdio:npx -y @scope/pkg@1.2 --design blue"),
        ("python s.py --token hunter2", "python s.py --token ***"),
        ("", ""),
        (":", ":"),
    ],
)
def test_the_description_of_a_target(url: str, shown: str) -> None:
    assert redact_url(url) == shown


def test_a_command_object_hides_the_same() -> None:
    assert redact_command(["x", "--api-key", "hunter2", "--n", "1"]) == "x --api-key *** --n 1"
    assert "hunter2" not in str(Stdio("x", ["--password=hunter2"], env={"TOKEN": "hunter2"}))
    assert "hunter2" not in repr(Stdio("x", env={"TOKEN": "hunter2"}))


MARK = "QxZ9"
secrets = st.text(st.characters(codec="utf-8", exclude_characters="&#'\"\\"), max_size=8).map(
    lambda text: MARK + "".join(text.split()) + MARK
)
names = st.sampled_from(["token", "API_KEY", "api-key", "password", "Secret", "auth_token", "access_key", "credential"])


@settings(seeded, max_examples=25)
@given(secrets, names, st.sampled_from(["https", "redis", "tcp", "unknown"]))
async def test_a_secret_is_in_no_error(secret: str, name: str, scheme: str) -> None:
    targets = [
        f"{scheme}://user:{secret}@host/path",
        f"{scheme}://user:{secret}@host:99999/path",
        f"{scheme}://:{secret}@host:port",
        f"{scheme}:user:{secret}@host",
        f"{scheme}://host:x/path?a=b&{name}={secret}",
        f"stdio:no-such-command-anywhere --{name} {secret} --verbose",
        f"stdio:no-such-command-anywhere --{name}={secret}",
        f"stdio:no-such-command-anywhere {name}={secret}",
        f"stdio:no-such-command-anywhere --env={name}={secret} 'open",
    ]
    for target in targets:
        shown = redact_url(target)
        assert MARK not in shown, (target, shown)
        with pytest.raises(TransportError) as caught:
            async with open_transport(target):
                pytest.fail("it opened")
        assert MARK not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}", target


@seeded
@given(st.text(max_size=30) | st.text("/:@?#[]=&% -'\"\\abtoken1", max_size=30))
def test_any_text_can_be_shown_and_is_an_error_at_most(text: str) -> None:
    redact_url(text)
    with suppress(UsageError):
        to_transport(text)


# What a target looks like that is neither.


def test_a_plain_function_is_described_by_its_name() -> None:
    @asynccontextmanager
    async def carry(scope: Scope) -> AsyncGenerator[FrameChannels]:
        async with Memory("x")(scope) as channels:
            yield channels

    assert describe(carry).endswith("carry")
    assert to_transport(carry) is carry
