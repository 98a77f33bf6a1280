"""HTTP over a Unix socket: programs of others on both sides, the socket's file, and mistakes."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trio
from httpx._types import HeaderTypes

from tests.peers.test_http_client import conversing, sdk_server, work
from tests.support.raw_http import Conversation, modern, modern_fields
from tests.support.recording_handler import Served, serving
from trioxport import Request, ServerUnreachable, UsageError, open_transport, serve_transport
from trioxport._core.token_bucket import Rate
from trioxport.abc import Era
from trioxport.auth.oauth import OAuth
from trioxport.demo import serve_demo
from trioxport.diagnosis.doctor import examine
from trioxport.peer import open_client
from trioxport.transports.http import Http
from trioxport.transports.http.server import HttpServer, SocketFile
from trioxport.transports.stream import Unix

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Python has no Unix sockets there")

BOUND: Final = 20.0
CLIENT: Final = {"name": "test", "version": "1"}
HELLO: Final = modern("hello")


def url_in(folder: Path, query: str = "", endpoint: str = "#/mcp") -> str:
    return f"http+unix://{folder}/s{query}{endpoint}"


@asynccontextmanager
async def served_in(folder: Path, **options: Any) -> AsyncGenerator[Served]:
    with trio.fail_after(BOUND):
        async with serving(HttpServer(url_in(folder), **options)) as served:
            yield served


# Programs of others


async def test_httpx(tmp_path: Path) -> None:
    async with served_in(tmp_path) as served, httpx.AsyncClient(transport=transport(tmp_path)) as client:
        answer = await client.post("http://localhost/mcp", json=HELLO, headers=modern_fields(HELLO))
        assert (answer.status_code, answer.json()["id"]) == (200, 1)
        assert served.url == url_in(tmp_path)
        assert served.infos[0].peer is None


def transport(folder: Path) -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(uds=str(folder / "s"))


async def test_curl(tmp_path: Path) -> None:
    fields = [f"-H{name}: {value}" for name, value in modern_fields(HELLO).items()]
    curl = ["curl", "-sS", "--unix-socket", str(tmp_path / "s"), *fields, "-d", json.dumps(HELLO)]
    async with served_in(tmp_path):
        done = await trio.run_process([*curl, "http://localhost/mcp"], capture_stdout=True)
    assert json.loads(done.stdout)["result"] == {"method": "hello"}


NODE: Final = """
const [socketPath, body, headers] = process.argv.slice(1)
const options = {socketPath, path: "/mcp", method: "POST", headers: JSON.parse(headers)}
const asked = require("http").request(options, async answer => {
  for await (const part of answer) process.stdout.write(part)
})
asked.end(body)
"""


async def test_node(tmp_path: Path, everything_server: list[str]) -> None:
    arguments = [str(tmp_path / "s"), json.dumps(HELLO), json.dumps(modern_fields(HELLO))]
    async with served_in(tmp_path):
        done = await trio.run_process([everything_server[0], "-e", NODE, *arguments], capture_stdout=True)
    assert json.loads(done.stdout)["result"] == {"method": "hello"}


@pytest.mark.deadline(60)
async def test_a_server_of_the_official_sdk_under_uvicorn(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with trio.fail_after(50):
        async with sdk_server([f"unix={path}"], tmp_path) as url:
            assert url == f"http+unix://{path}#/mcp"
            assert not (await examine(url)).has_failed
            for era in ("modern", "legacy"):
                async with conversing(url, era) as peer:
                    added = await peer.request("tools/call", {"name": "add", "arguments": {"a": 2, "b": 3}})
                    assert added["content"][0]["text"] == "5"
                    assert await work(peer) == [1, 2, 3]
        async with sdk_server([f"unix={tmp_path / 'old'}", "sse"], tmp_path) as url:
            for scheme in ("", "sse+"):  # fallen back to, and asked for
                async with conversing(scheme + url, None) as peer:
                    assert await work(peer) == [1, 2, 3]


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_both_sides_in_both_eras(era: Era, tmp_path: Path) -> None:
    with trio.fail_after(BOUND):
        async with (
            serving(url_in(tmp_path), handler=serve_demo) as served,
            open_transport(served.url) as connection,
            open_client(connection, client_info=CLIENT, era=era) as client,
        ):
            called = await client.call_tool("add", {"a": 2, "b": 3})
            assert called.text == "sum: 5"
            assert connection.info.target == served.url


# The socket's file


@pytest.mark.parametrize("kind", ["http", "stream"])
async def test_the_permissions_of_the_file(kind: str, tmp_path: Path) -> None:
    group = (grp.getgrall()[1] if os.geteuid() == 0 else grp.getgrgid(os.getgid())).gr_name
    for query, file, mode in (("", None, 0o600), (f"?mode=660&group={group}", SocketFile(0o660, group=group), 0o660)):
        by_url: Any = HttpServer(url_in(tmp_path, query)) if kind == "http" else f"unix://{tmp_path}/s{query}"
        by_option: Any = (
            HttpServer(url_in(tmp_path), socket_file=file)
            if kind == "http"
            else Unix(str(tmp_path / "s"), file=file or SocketFile())
        )
        for target in (by_url, by_option):
            with trio.fail_after(BOUND):
                async with serving(target) as served:
                    found = os.stat(tmp_path / "s")
                    assert stat.S_IMODE(found.st_mode) == mode
                    assert file is None or grp.getgrgid(found.st_gid).gr_name == group
                    async with open_transport(served.url):  # the options of the file do not disturb a client
                        pass
            assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("kind", ["http+unix", "unix"])
async def test_the_owner_of_the_file(kind: str, tmp_path: Path) -> None:
    """Another owner takes privileges; oneself may be named by anybody."""
    user = pwd.getpwnam("daemon") if os.geteuid() == 0 else pwd.getpwuid(os.getuid())
    end = "#/mcp" if kind == "http+unix" else ""
    for name, group in ((user.pw_name, user.pw_gid), (user.pw_uid, os.getgid())):
        query = f"?user={name}" + (f"&group={group}" if os.geteuid() == 0 else "")
        with trio.fail_after(BOUND):
            async with serving(f"{kind}://{tmp_path}/s{query}{end}"):
                found = os.stat(tmp_path / "s")
                assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (user.pw_uid, 0o600)
                assert os.geteuid() != 0 or found.st_gid == group


@pytest.mark.skipif(os.geteuid() == 0, reason="root may give a file to any user")
async def test_an_owner_that_takes_privileges(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot set the permissions of the socket file: Operation not permitted"):
        await serve_transport(serve_demo, url_in(tmp_path, "?user=root"))
    assert not (tmp_path / "s").exists()


async def test_a_server_removes_no_file_but_its_own(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with served_in(tmp_path):
        path.rename(tmp_path / "mine")
        async with served_in(tmp_path):  # its successor
            (tmp_path / "mine").rename(tmp_path / "older")
        assert not path.exists()
        path.write_text("another's")
    assert path.read_text() == "another's"


async def test_a_file_that_was_removed_meanwhile_is_no_failure(tmp_path: Path) -> None:
    async with served_in(tmp_path):
        (tmp_path / "s").unlink()


async def test_a_stale_file_is_replaced_and_another_file_or_server_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    done = "import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
    await trio.run_process([sys.executable, "-c", done, str(path)])
    assert path.is_socket()
    async with served_in(tmp_path):
        with pytest.raises(UsageError, match="a server listens on this socket already"):
            await serve_transport(serve_demo, url_in(tmp_path))
        async with open_transport(url_in(tmp_path)):
            pass
    path.write_text("precious")
    with pytest.raises(UsageError, match="the file exists and is no socket"):
        await serve_transport(serve_demo, url_in(tmp_path))
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("?mode=rw", "mode is no number in octal. Write [?]mode=660"),
        ("?mode=1777", "mode has to be a whole number from 0 to 511"),
        ("?user=no-such-user", "there is no user 'no-such-user' on this machine"),
        ("?group=no-such-group", "there is no group 'no-such-group' on this machine"),
        ("?umask=0", "unknown option 'umask'"),
    ],
)
async def test_permissions_that_cannot_be_set(query: str, text: str, tmp_path: Path) -> None:
    for url in (url_in(tmp_path, query), f"unix://{tmp_path}/s{query}"):
        with pytest.raises(UsageError, match=text):
            await serve_transport(serve_demo, url)
        assert not (tmp_path / "s").exists()


# Access


@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("127.0.0.1:80", 200), ("evil.example", 421)])
async def test_the_host_of_requests(host: str, status: int, tmp_path: Path) -> None:
    async with served_in(tmp_path), await trio.open_unix_socket(str(tmp_path / "s")) as stream:
        reply = await Conversation(stream, "localhost").ask(
            "POST", "/mcp", modern_fields(HELLO) | {"host": host}, HELLO
        )
        assert reply.status == status


async def test_a_proxy_on_the_socket_names_its_clients_if_it_is_trusted(tmp_path: Path) -> None:
    for trusted, peer in ((["unix"], "192.0.2.7"), (["127.0.0.1"], None)):
        options = {"trusted_proxies": trusted, "rate": Rate(1, per=3600)}
        async with served_in(tmp_path, **options) as served, httpx.AsyncClient(transport=transport(tmp_path)) as client:
            for address, status in (("192.0.2.7", 200), ("192.0.2.8", 200 if peer else 429), ("192.0.2.7", 429)):
                headers: HeaderTypes = modern_fields(HELLO) | {"x-forwarded-for": address}
                answer = await client.post("http://localhost/mcp", json=HELLO, headers=headers)
                assert answer.status_code == status
            assert served.infos[0].peer == peer


# Mistakes


async def test_a_socket_without_a_server(tmp_path: Path) -> None:
    with pytest.raises(ServerUnreachable, match="cannot connect: No such file or directory") as failure:
        async with open_transport(url_in(tmp_path)):
            pass
    assert failure.value.target == url_in(tmp_path)
    assert failure.value.retryable


@pytest.mark.parametrize(
    "url",
    [
        "http+unix:#/mcp",
        "http+unix:///run/s#mcp",
        "http+unix:///run/s#/mcp#x",
        "http+unix:///run/s#/m cp",
        "http+unix://%2Frun%2Fs/mcp",
        "http+unix://user@host/s#/mcp",
        "sse+http+unix:///run/s#mcp",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match=r"is written http\+unix:///PATH#/ENDPOINT"):
        Http.from_url(url)


async def test_options_that_have_no_place_on_a_socket(tmp_path: Path) -> None:
    url = url_in(tmp_path)
    async with httpx.AsyncClient() as client:
        with pytest.raises(UsageError, match=r"has its own way to the server. Pass http://localhost/ENDPOINT"):
            Http(url, client=client)
    with pytest.raises(UsageError, match="socket_file is for a Unix socket"):
        HttpServer("http://127.0.0.1:0/mcp", socket_file=SocketFile())
    async with served_in(tmp_path):
        with pytest.raises(UsageError, match="OAuth is for servers that have a URL on the web"):
            async with open_transport(Http(url, auth=OAuth())):
                pass


def test_a_secret_in_the_query_of_the_endpoint_is_not_shown() -> None:
    assert str(Http("http+unix:///run/s#/mcp?token=abc&a=b")) == "http+unix:///run/s#/mcp?token=***&a=b"


async def test_endpoints_on_one_socket_are_told_apart(tmp_path: Path) -> None:
    """A gateway may have servers of both eras behind one socket: that of one endpoint says nothing about another."""
    async with served_in(tmp_path) as served:
        async with open_transport(served.url) as connection:
            await connection.tx.send(Request(1, "hello", HELLO["params"]))
            await connection.rx.receive()
        async with open_transport(served.url) as again, open_transport(url_in(tmp_path, endpoint="#/other")) as other:
            assert (again.info.era, other.info.era) == ("modern", None)
