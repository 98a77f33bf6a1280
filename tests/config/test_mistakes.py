"""Single mistakes of a configuration, each with its report; and unusual values that are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from trioxport.auth import ApiKey, Bearer, Secret, TLSOptions
from trioxport.config import ConfigError, ServerConfig, list_servers, load_servers
from trioxport.layers import Batching, Logging, Retry, Timeout
from trioxport.transports.http import Http
from trioxport.transports.redis import Redis, RedisStream
from trioxport.transports.stdio import Stdio
from trioxport.transports.stream import Tls, Unix

URL: Final = "https://a.example/mcp"
AGENT: Final = {"username": "agent"}

SERVERS: Final[tuple[tuple[Any, str], ...]] = (
    ("text", "s: the server is no table"),
    ({}, "s: the server has neither a command nor a url"),
    ({"comand": "x"}, "s: comand: this field is not known. Did you mean 'command'?"),
    ({"urls": URL, "new-setting": 1}, "s: new-setting: this field is not known"),
    ({"type": "stdio", "url": URL}, "s: command: a stdio server needs a command"),
    ({"type": "http", "command": "x"}, "s: url: a server of this type (http) needs a url"),
    ({"type": 5, "url": URL}, "s: type: there is no such type. The types: stdio"),
    ({"type": "http", "url": "ws://a.example"}, "s: url: this is no URL of the type http. Write http://HOST/PATH or"),
    ({"type": "grpc", "url": URL}, "s: url: this is no URL of the type grpc. Write grpc://HOST:PORT or grpcs://HOST:P"),
    ({"url": "grpc://a.example/path"}, "s: url: 'path' is no method. Write it as mcp.grpc.v1.MCPTransport/Connect"),
    ({"url": "grpc://a.example:x"}, "s: url: a server of gRPC is written grpc(s)://HOST:PORT, without more"),
    ({"url": "grpc://a.example", "options": {"verify": 1}}, "s: options.verify: there is no such option"),
    ({"type": "tcp", "url": "nothing://[::"}, "s: url: the URL has no known scheme"),
    ({"url": "http://[::"}, "s: url: an endpoint is written http(s)://HOST/PATH"),
    ({"url": "tcp://a.example:9", "tls": {"ca": "x"}}, "s: tls: the scheme tcp has no TLS"),
    ({"url": "tls://a.example:9", "tls": 5}, "s: tls: this is no table"),
    ({"url": "tls://a.example:9", "tls": {"certificate": "x"}}, "s: tls.certificate: there is no such option"),
    ({"url": "tcp://a.example"}, "s: url: "),
    ({"url": URL, "env": {"A": "value"}}, "s: env: a server of this type (http) has no such field"),
    ({"url": URL, "auth": 5}, "s: auth: this is no table"),
    ({"url": URL, "options": 5}, "s: options: this is no table"),
    ({"url": URL, "layers": 5}, "s: layers: this is no list"),
    ({"url": URL, "layers": [5]}, "s: layers[0]: there is no such layer. The layers: Batching"),
    ({"url": URL, "layers": ["Retri"]}, "s: layers[0]: there is no such layer. Did you mean 'Retry'?"),
    ({"url": URL, "layers": [{"Retry": 5}]}, "s: layers[0].Retry: this is a number, and has to be a table"),
    ({"url": URL, "layers": ["Signing"]}, "s: layers[0].Signing: missing a required argument: 'keys'"),
    ({"url": URL, "timeout": 5, "layers": [{"Timeout": {"seconds": 5}}]}, "s: timeout: the layer Timeout and this"),
    ({"url": URL, "limits": {"maxMessageSize": True}}, "s: limits.maxMessageSize: this is a truth value, and has"),
    ({"url": URL, "limits": {"maxMessageSize": 1.5}}, "s: limits.maxMessageSize: this is a number, and has"),
    ({"url": URL, "allowPlaintext": "perhaps"}, "s: allowPlaintext: this is a text, and has to be true or false"),
    ({"url": URL, "reconnect": {"attempts": "many"}}, "s: reconnect.attempts: this is a text, and has to be a whole"),
    ({"url": URL, "reconnect": {"backoff": 5}}, "s: reconnect.backoff: this is a number, and has to be a table"),
    ({"url": URL, "connectTimeout": "soon"}, "s: connectTimeout: this is no duration above 0"),
    ({"url": URL, "httpUrl": URL}, "s: httpUrl: this sets 'url' once more"),
    ({"url": "${${}"}, "s: url: "),
    ({"command": "x", "env": {"A": "${file:bad}"}}, "cannot be read: it is not UTF-8"),
    ({"command": "x", "env": {"A": "${a b}"}}, "s: env.A: a reference is of no known kind"),
    ({"command": "x", "env": {"A": "${input:asked}"}}, "s: env.A: the input 'asked' has no value"),
    ({"command": "x", "envFile": "bad"}, "s: envFile: the file cannot be read: it is not UTF-8"),
    ({"type": "redis", "url": URL}, "s: url: this is no URL of the type redis. Write redis://HOST:PORT/DATABASE or"),
    ({"url": "redis://a.example", "options": {"servce": "x"}}, "s: options.servce: there is no such option. Did you"),
    ({"url": "redis://a.example", "options": {"service": "a b"}}, "s: url: service has to be a name"),
    ({"url": "redis://a.example", "headers": {"A": "b"}}, "s: headers: a server of this type (redis) has no such"),
    ({"command": "x", "layrs": [], "trioxport": 1}, "s: layrs: this field is not known. Did you mean 'layers'?"),
)


@pytest.mark.parametrize(("entry", "report"), SERVERS)
def test_a_mistake_in_a_server(entry: Any, report: str, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"\xff\xff")
    content = {"trioxport": 1, "inputs": [{"id": "asked"}], "mcpServers": {"s": entry}}
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_servers(path)
    assert report in str(raised.value)


DOCUMENTS: Final[tuple[tuple[str, bytes, str], ...]] = (
    ("mcp.json", b"[]", "the file holds no object"),
    ("mcp.json", b"{}", "no table of servers was found"),
    ("mcp.json", b'{"mcpServers": 5}', "no table of servers was found"),
    ("mcp.json", b"\xff", "the file is not UTF-8. Save it as UTF-8"),
    ("mcp.json", b"[" * 100_000, "the file is nested too deeply"),
    ("mcp.json", b'{"a": ', "the file is not JSON: Expecting value (line 1, column 7)"),
    ("mcp.toml", b"a = ", "the file is not TOML (at end of document). Correct it there"),
    ("mcp.yaml", b"", "YAML is not read. Load it with a YAML library, and pass the mapping"),
    ("none.json", b"", "the file cannot be read: No such file or directory"),
)


@pytest.mark.parametrize(("name", "content", "report"), DOCUMENTS)
def test_a_mistake_in_the_whole_file(name: str, content: bytes, report: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name != "none.json":
        path.write_bytes(content)
    for read in (load_servers, list_servers):
        with pytest.raises(ConfigError) as raised:
            read(path)
        assert report in str(raised.value)
        assert str(path) in str(raised.value)


# Values that are right.


def loaded(entry: Any, **options: Any) -> ServerConfig:
    return load_servers({"mcpServers": {"s": entry}}, **options)["s"]


def test_kinds_of_targets() -> None:
    tls = loaded({"url": "tls://a.example:9", "tls": {"ca": "ca.pem"}}).target.transport
    assert isinstance(tls, Tls)
    assert tls.ca == "ca.pem"
    assert isinstance(loaded({"url": "unix:///run/mcp.sock"}).target.transport, Unix)
    assert isinstance(loaded({"url": "unix:///run/mcp.sock", "type": "unix"}).target.transport, Unix)
    for url, entry in (
        ("http+unix:///run/s#/mcp", {"url": "unix:///run/s#/mcp", "options": {"idleTimeout": 9}}),
        ("http+unix:///run/s#/mcp", {"url": "http+unix:///run/s#/mcp", "headers": {"A": "b"}}),
        ("http+unix:///run/s", {"url": "unix:///run/s", "type": "http"}),
    ):
        over_unix = loaded(entry).target.transport
        assert isinstance(over_unix, Http)
        assert over_unix.url == url
    http_sse = loaded({"url": "sse+https://a.example/sse"}).target.transport
    assert isinstance(http_sse, Http)
    assert (http_sse.url, http_sse.binding) == ("https://a.example/sse", "sse")


PASSWORD: Final = "p/#?@:%41 ss"


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        (Redis, {"url": "redis://agent:${P}@r.example:7/2?service=a"}),
        (Redis, {"url": "redis://r.example:7/2?service=b", "options": {"service": "a", "password": "${P}", **AGENT}}),
        (Redis, {"type": "redis", "url": "redis://agent:{env:P}@r.example:7/2", "options": {"service": "a"}}),
        (RedisStream, {"url": "redis+stream://agent:${P}@r.example:7/2?service=a"}),
        (RedisStream, {"type": "redis-stream", "url": "redis+stream://agent:${P}@r.example:7/2?service=a"}),
    ],
)
def test_a_service_behind_redis_with_a_password_of_any_characters(kind: type[Redis], entry: Any) -> None:
    config = loaded(entry, environment={"P": PASSWORD})
    redis = config.target.transport
    assert isinstance(redis, kind)
    assert (redis.host, redis.port, redis.database) == ("r.example", 7, 2)
    assert (redis.service, redis.username, redis.password) == ("a", "agent", Secret(PASSWORD))
    assert "ss" not in repr(config)


def test_the_password_of_a_key() -> None:
    entry = {"url": URL, "tls": {"cert": "own.pem", "password": "${P}"}}
    transport = loaded(entry, environment={"P": PASSWORD}).target.transport
    assert isinstance(transport, Http) and isinstance(transport.tls, TLSOptions)
    assert transport.tls.password == Secret(PASSWORD)


def test_values_in_other_spellings() -> None:
    entry = {"command": "x", "args": ["-n", 5], "env": {"A": 1, "B": True, "C": None, "D": "$${kept}"}, "cwd": "~"}
    transport = loaded(entry).target.transport
    assert isinstance(transport, Stdio)
    assert transport.args == ("-n", "5")
    assert transport.env == {"A": "1", "B": "true", "D": "${kept}"}
    assert transport.cwd == str(Path.home())
    assert loaded({"command": "x", "env": None, "args": None}).target.transport == Stdio("x")


def test_credentials() -> None:
    key = loaded({"url": URL, "auth": {"type": "api-key", "header": "X-Key", "key": "secret-key"}}).target.transport
    token = loaded({"url": URL, "auth": "a-secret-token"}).target.transport
    assert isinstance(key, Http) and isinstance(key.auth, ApiKey)
    assert isinstance(token, Http) and isinstance(token.auth, Bearer)


def test_layers_and_policies_with_values_as_texts() -> None:
    environment = {"ATTEMPTS": "4", "ON": "true", "SECONDS": "1.5"}
    entry = {
        "url": URL,
        "layers": {"retry": {"attempts": "${ATTEMPTS}"}, "Logging": None},
        "timeout": "2m",
        "allowPlaintext": "${ON}",
        "closeTimeout": "${SECONDS}",
        "reconnect": False,
    }
    server = loaded(entry, environment=environment)
    retry, logging, timeout = server.layers
    assert isinstance(retry, Retry) and isinstance(logging, Logging) and isinstance(timeout, Timeout)
    assert (retry.attempts, timeout.seconds, server.allow_plaintext, server.close_timeout) == (4, 120, True, 1.5)
    assert server.reconnect is None
    [batching] = loaded({"url": URL, "layers": [{"layer": "Batching"}]}).layers
    assert isinstance(batching, Batching)


def test_a_file_of_variables(tmp_path: Path) -> None:
    (tmp_path / "vars").write_text("# no\n\nexport A=1\nB='two words'\nC=\"3\"\nnothing\n", encoding="utf-8")
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {"s": {"command": "x", "envFile": "vars", "env": {"A": "own"}}}}', encoding="utf-8")
    transport = load_servers(path)["s"].target.transport
    assert isinstance(transport, Stdio)
    assert transport.env == {"A": "own", "B": "two words", "C": "3"}


def test_an_input_is_asked_for_once() -> None:
    asked: list[str] = []

    def ask(definition: Any) -> str | None:
        asked.append(definition["id"])
        return None if definition["id"] == "with-default" else "answered"

    env = {"A": "${input:key}", "B": "${input:key}", "C": "${input:with-default}"}
    content = {
        "inputs": [{"id": "key"}, {"id": "with-default", "default": "usual"}],
        "servers": {"s": {"command": "x", "env": env}},
    }
    transport = load_servers(content, ask=ask)["s"].target.transport
    assert isinstance(transport, Stdio)
    assert transport.env == {"A": "answered", "B": "answered", "C": "usual"}
    assert asked == ["key", "with-default"]


def test_servers_by_name() -> None:
    content = {"mcpServers": [{"name": "right", "command": "x"}, {"name": "wrong", "command": ""}, {"command": "y"}]}
    assert list_servers(content) == ["right", "wrong", "server 3"]
    assert list(load_servers(content, names=["right"])) == ["right"]


def test_a_number_that_may_be_milliseconds_is_noted() -> None:
    server = loaded({"command": "x", "timeout": 1500})
    [note] = server.notes
    assert (note.field, note.reason) == ("timeout", "this is read as seconds")
    assert "1500ms" in str(note)
