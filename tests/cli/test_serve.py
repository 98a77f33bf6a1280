"""``trioxport serve``: servers of the user's modules, called by clients of the official SDK."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import ssl
import stat
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final

import httpx2
import pytest
import trio
import trustme
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from tests.support.raw_http import asking
from tests.support.serve_command import BOUND, COMMAND, running, serve_command
from trioxport import ConnectTimeout, open_transport
from trioxport.cli import main
from trioxport.peer import open_client
from trioxport.transports.stdio import Stdio

pytestmark = pytest.mark.deadline(BOUND + 5)

INFO: Final = {"name": "test", "version": "1"}
URL: Final = "http://127.0.0.1:0/mcp"
SDK: Final = """
import os
from mcp.server.mcpserver import MCPServer

server = MCPServer("own")

@server.tool(structured_output=False)
def whoami() -> str:
    return f"sdk {os.getpid()}"
"""
FASTMCP: Final = """
from fastmcp import FastMCP

mcp = FastMCP("own")

@mcp.tool(output_schema=None)
def whoami() -> str:
    return "fastmcp"
"""
HANDLER: Final = """
from trioxport.peer import open_peer

async def discover(request):
    return {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}

async def list_tools(request):
    return {"resultType": "complete", "tools": [], "ttlMs": 0, "cacheScope": "public"}

async def call_tool(request):
    return {"resultType": "complete", "content": [{"type": "text", "text": "handler"}]}

async def answer(connection):
    requests = {"server/discover": discover, "tools/list": list_tools, "tools/call": call_tool}
    async with open_peer(connection, requests=requests) as peer:
        await peer.wait_finished()
"""


def write(folder: Path, **sources: str) -> None:
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source, encoding="utf-8")


async def whoami(target: object) -> str:
    """The answer of the tool, by a client of the official SDK."""
    async with Client(target) as client:  # type: ignore[arg-type]  # an address or a transport
        await client.list_tools()  # or it asks for the output schema after the call
        [content] = (await client.call_tool("whoami", {})).content
        assert isinstance(content, TextContent)
        return content.text


@pytest.mark.parametrize(
    ("source", "reference", "answer"),
    [(SDK, "tools:server", "sdk"), (FASTMCP, "tools.py", "fastmcp"), (HANDLER, "./tools.py:answer", "handler")],
)
async def test_a_server_is_served_and_its_log_has_start_request_and_end(
    source: str, reference: str, answer: str, tmp_path: Path
) -> None:
    write(tmp_path, tools=source)
    async with serve_command(reference, URL, folder=tmp_path) as served:
        assert (await whoami(await served.address())).startswith(answer)
        assert await served.stop(signal.SIGTERM) == 0
    assert '"POST /mcp" 200' in served.log
    assert "tools/call\n" in served.log
    assert "INFO received SIGTERM: stopping\n" in served.log
    assert served.log.endswith(": stopped serving\n")
    assert "Traceback" not in served.log


async def test_ctrl_c_stops_in_order_and_the_access_log_can_be_left_out(tmp_path: Path) -> None:
    write(tmp_path, tools=SDK)
    async with serve_command("tools", URL, "--no-access-log", "--no-sessions", folder=tmp_path) as served:
        address = await served.address()
        await whoami(address)
        async with asking(address, "GET") as reply:
            assert reply.status == 405  # there are no sessions
        assert await served.stop(signal.SIGINT) == 0
    assert "POST" not in served.log


async def test_a_unix_socket(tmp_path: Path) -> None:
    """Served by two processes, bridged to another socket, and called by the official SDK."""
    write(tmp_path, tools=SDK)
    served_at = f"http+unix:{tmp_path}/own?mode=660#/mcp"
    async with serve_command("tools", served_at, "--workers", "2", folder=tmp_path) as served:
        address = await served.address()
        assert stat.S_IMODE(os.stat(tmp_path / "own").st_mode) == 0o660
        bridge = (*COMMAND[:-1], "bridge", f"http+unix:{tmp_path}/bridge#/", address)
        async with running(*bridge, folder=tmp_path) as bridged:
            await bridged.address()
            for name, path in (("own", "/mcp"), ("bridge", "/")):
                socket = httpx2.AsyncHTTPTransport(uds=str(tmp_path / name))
                async with httpx2.AsyncClient(transport=socket, timeout=30) as http:
                    url = f"http://localhost{path}"
                    assert (await whoami(streamable_http_client(url, http_client=http))).startswith("sdk")
            assert await bridged.stop(signal.SIGTERM) == 0
        assert await served.stop(signal.SIGTERM) == 0
    assert not (tmp_path / "own").exists()
    assert not (tmp_path / "bridge").exists()


async def test_standard_streams_carry_nothing_but_messages(tmp_path: Path) -> None:
    write(tmp_path, tools=f"{SDK}\nprint('Starting')\n")
    log: list[str] = []
    python, *arguments = COMMAND
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    with trio.fail_after(BOUND):
        target = Stdio(python, [*arguments, "tools.py", "stdio:"], cwd=str(tmp_path), env=path, stderr=log.append)
        async with open_transport(target) as connection, open_client(connection, client_info=INFO) as client:
            assert (await client.call_tool("whoami")).text.startswith("sdk")
    assert log[0] == "Starting"
    assert log[1].endswith(" INFO serving stdio:")


async def test_certificate_tokens_names_and_pages(tmp_path: Path) -> None:
    write(tmp_path, tools=SDK)
    (tmp_path / "tokens").write_text("right-token ada\n", encoding="utf-8")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    options = shlex.split(
        "--cert cert.pem --key key.pem --token-file tokens --hosts 127.0.0.1 --hosts mcp.example --health /livez "
        "--ready /readyz --metrics /metrics --drain 0.1 --trusted-proxy 10.0.0.0/8"
    )
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with serve_command("tools:server", "https://127.0.0.1:0/mcp", *options, folder=tmp_path) as served:
        address = await served.address()
        base = address.removesuffix("/mcp")
        token = {"authorization": "Bearer right-token"}
        async with httpx2.AsyncClient(verify=context, headers=token, timeout=30) as http:
            assert (await whoami(streamable_http_client(address, http_client=http))).startswith("sdk")
            assert (await http.get(f"{base}/livez")).json() == {"status": "ok"}
            assert (await http.get(f"{base}/readyz")).status_code == 200
            assert 'method="tools/call"' in (await http.get(f"{base}/metrics")).text
            foreign = await http.post(address, headers={"host": "evil.example"})
            assert foreign.status_code == 421
            wrong = await http.post(address, headers={"authorization": "Bearer wrong-token"})
            assert wrong.status_code == 401
        assert await served.stop(signal.SIGTERM) == 0
    assert " ada " in served.log
    assert "the Host is 'evil.example'" in served.log
    assert "right-token" not in served.log and "wrong-token" not in served.log


@pytest.mark.skipif(sys.platform == "win32", reason="there are no workers on Windows")
async def test_workers_answer_at_one_address_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, tools=SDK)
    async with serve_command("tools", URL, "--workers", "2", folder=tmp_path) as served:
        await served.address()  # that of the first worker
        address = (await served.until(r"INFO serving (\S+) with 2 workers\n"))[1]
        await served.address()
        pids: set[str] = set()
        while len(pids) < 2:
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    pids.add(await whoami(address))

                for _ in range(4):
                    nursery.start_soon(ask)
        os.kill(int(min(pids).removeprefix("sdk ")), signal.SIGKILL)
        await served.until(r"WARNING worker \d was ended by SIGKILL; it is started again in ")
        await served.address()
        assert (await whoami(address)).startswith("sdk")
        assert await served.stop(signal.SIGTERM) == 0
    assert "INFO received SIGTERM: stopping the workers" in served.log


async def test_messages_are_logged_if_asked_for(tmp_path: Path) -> None:
    write(tmp_path, tools=HANDLER)
    async with serve_command("tools:answer", "tcp://127.0.0.1:0", "-v", folder=tmp_path) as served:
        address = await served.address()
        async with open_transport(address) as connection, open_client(connection, client_info=INFO) as client:
            await client.list_tools()
        await served.until(r'<-- \{"jsonrpc":"2.0","id":\d+,"method":"tools/list"')
        assert await served.stop(signal.SIGTERM) == 0


# Mistakes.


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """The current folder; in the end the log, ``sys.path`` and the imported modules are as before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    library, modules = logging.getLogger("trioxport"), {*sys.modules}
    before = library.level, [*library.handlers], library.propagate
    yield tmp_path
    library.setLevel(before[0])
    library.handlers[:], library.propagate = before[1:]
    for name in {*sys.modules} - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


MISTAKES: Final[Sequence[tuple[str, str]]] = [
    ("nothing_here:server", "there is no module 'nothing_here'. It is looked for in the current folder"),
    ("nothing.py:server", "there is no file nothing.py. It is looked for in "),
    (":server", "':server' names no module. Write MODULE:NAME or FILE.py:NAME"),
    ("good:servr", "good has no 'servr'. Did you mean 'server'? Its servers: server"),
    ("good:server.nothing", "good has no 'server.nothing'"),
    ("good:NUMBER", "good:NUMBER is no server, but of the type int. A server is an MCPServer"),
    ("other.py", "has no server by a usual name (server, mcp, app, handler). Write other.py:NAME. Its servers: own"),
    ("empty", "It has no servers"),
    ("tool.py", "Write tool.py:NAME. Its servers: weather, answer\n"),
    ("tool.py:wether", "tool.py has no 'wether'. Did you mean 'weather'? Its servers: weather, answer\n"),
    (
        "tool.py:slow",
        "tool.py:slow is no server, but a function of other arguments than a connection: (seconds: float)",
    ),
    ("tool.py:fast", "tool.py:fast is no server, but a function of other arguments than a connection: ()"),
    ("tool.py:Answer", "tool.py:Answer is no server, but of the type type"),
    ("good tcp://127.0.0.1:0 --hosts a", "--hosts does not apply to this target"),
    ("good tcp://127.0.0.1:0 --metrics /m", "only an HTTP server has a page of figures"),
    ("good https://127.0.0.1:0/mcp", "https needs a certificate: add --cert FILE, or serve http behind a proxy"),
    ("good http://127.0.0.1:0/mcp --cert c", "--cert is for https, wss, tls and grpcs, and the target is http"),
    ("good https://127.0.0.1:0/mcp --key k", "add --cert FILE"),
    ("good https://127.0.0.1:0/mcp --cert c", "cannot use the certificate files: c: No such file or directory"),
    ("good tls://127.0.0.1:0 --cert c", "cannot use the certificate files: c: No such file or directory"),
    ("good tls://127.0.0.1:0", "Add --cert FILE"),
    ("good grpcs://127.0.0.1:0", "grpcs needs a certificate: add --cert FILE"),
    ("good grpcs://127.0.0.1:0 --cert c", "cannot use the certificate files: c: No such file or directory"),
    ("good http://127.0.0.1:0/mcp --token-file t", "cannot read the file of tokens: No such file or directory: t"),
    ("good tcp://127.0.0.1:0 --token-file t.py", "--token-file does not apply to this target"),
    ("checked http://127.0.0.1:0/mcp --token-file t.py", "Keep one: auth of the server, or verify= of HttpServer"),
    ("good http://0.0.0.0:0/mcp --allow-plaintext", "Add --hosts mcp.example.com: without them any web page"),
    ("good http://0.0.0.0:0/mcp --hosts a", "Use an encrypted target, or say --allow-plaintext"),
    ("good --reload --workers 2", "--reload runs one process: leave out --workers"),
    ("good --reload-dir .", "--reload-dir is for --reload: add that"),
    ("good stdio: --reload", "workers share an address of TCP"),
    ("typed tcp://127.0.0.1:0 --workers 2", "this program cannot be started anew. Write it to a file"),
    ("good --workers 0", "0 is not in the range x>=1"),
    ("good stdio: --workers 2", "workers share an address of TCP"),
]


TOOLS: Final = """
from mcp.server.mcpserver import MCPServer

async def answer(connection): ...

class Answer:
    async def __call__(self, connection): ...

weather = MCPServer("weather")

@weather.tool()
async def slow(seconds: float) -> str: ...

@weather.tool()
async def fast() -> str: ...
"""
CHECKED: Final = """
from mcp.server import MCPServer
from mcp.server.auth.settings import AuthSettings

class Tokens:
    async def verify_token(self, token): ...

urls = {"issuer_url": "https://login.example.com", "resource_server_url": "https://mcp.example.com/mcp"}
server = MCPServer("checked", token_verifier=Tokens(), auth=AuthSettings(validate_token_resource=True, **urls))
"""


@pytest.mark.parametrize(("line", "text"), MISTAKES)
def test_a_mistake_is_exit_code_2(
    line: str, text: str, in_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", "raise SystemExit"])
    if line.startswith("typed"):
        monkeypatch.setattr(sys, "orig_argv", ["python"])
    good = "NUMBER = 1\nasync def server(connection): ...\n"
    write(in_folder, good=good, typed=good, empty="", checked=CHECKED, tool=TOOLS, t="token ada\n")
    write(in_folder, other="from trio import sleep\nasync def own(connection): ...\nasync def _hidden(c): ...\n")
    assert main(["serve", *shlex.split(line)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert "Traceback" not in err


def test_advice_names_only_options_that_there_are(
    in_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run_server(*_arguments: object, **_options: object) -> None:
        raise ConnectTimeout("Redis did not answer in 30 s", target="redis://hung")

    monkeypatch.setattr("trioxport.cli.serve.run_server", run_server)
    write(in_folder, good="async def server(connection): ...\n")
    assert main(["serve", "good", "redis://hung"]) == 3
    reason = "redis://hung: Redis did not answer in 30 s. Check that the peer speaks this protocol"
    assert capsys.readouterr().err == f"trioxport: {reason}\n"
    assert main(["serve", "good", "redis://hung", "--json"]) == 3
    assert json.loads(capsys.readouterr().err)["error"]["message"] == reason


def test_an_error_of_the_module_is_shown_from_its_own_line_on(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        in_folder, raising="def start():\n    raise KeyError('API_KEY')\nstart()\n", importing="import nothing_there\n"
    )
    assert main(["serve", "raising:server"]) == 2
    err = capsys.readouterr().err
    assert err.startswith('Traceback (most recent call last):\n  File "' + str(in_folder / "raising.py"))
    assert err.endswith("KeyError: 'API_KEY'\ntrioxport: raising cannot be imported: KeyError. Its error is above\n")
    assert "importlib" not in err
    assert main(["serve", "importing.py"]) == 2
    err = capsys.readouterr().err
    assert err.endswith("importing.py cannot be imported: No module named 'nothing_there'. Its error is above\n")


def test_a_file_named_like_a_module_that_is_imported_already(
    in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(in_folder, json="async def server(connection): ...\n")
    assert main(["serve", "json.py:servr"]) == 2
    assert "Its servers: server" in capsys.readouterr().err
    assert not hasattr(sys.modules["json"], "server")
