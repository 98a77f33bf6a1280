"""The server of the page for operators: called by a client of the official SDK, watched by probes, and stopped."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx2
import pytest
import trio
import trustme
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

from tests.support.serve_command import BOUND, Served

PROGRAM: Final = Path(__file__).parents[2] / "docs/examples/operated/reports.py"
IN_FLIGHT: Final = 'trioxport_requests_in_flight{direction="received",method="tools/call"} 1'


@pytest.mark.deadline(BOUND + 5)
async def test_a_call_finishes_while_load_balancers_are_told(tmp_path: Path) -> None:
    source = PROGRAM.read_text(encoding="utf-8")
    assert "127.0.0.1:8443" in source
    (tmp_path / "reports.py").write_text(source.replace("127.0.0.1:8443", "127.0.0.1:0"), encoding="utf-8")
    (tmp_path / "tokens").write_text("secret-of-ada ada\n", encoding="utf-8")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    command = [sys.executable, "reports.py"]
    texts: list[str] = []
    with trio.fail_after(BOUND):
        process = await trio.lowlevel.open_process(command, cwd=tmp_path, stderr=subprocess.PIPE)
        assert process.stderr is not None
        headers = {"authorization": "Bearer secret-of-ada"}
        async with process.stderr, httpx2.AsyncClient(verify=context, headers=headers) as http:
            served = Served(process)
            address = await served.address()
            base = address.removesuffix("/mcp")
            assert (await http.get(f"{base}/livez")).status_code == 200
            assert (await http.get(f"{base}/readyz")).status_code == 200

            async def call() -> None:
                async with Client(streamable_http_client(address, http_client=http)) as client:
                    await client.list_tools()  # or it asks for the output schema after the call
                    [content] = (await client.call_tool("report", {"seconds": 1})).content
                    assert isinstance(content, TextContent)
                    texts.append(content.text)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(call)
                while IN_FLIGHT not in (await http.get(f"{base}/metrics")).text:
                    await served.until("GET /metrics")
                process.send_signal(signal.SIGTERM)
                await served.until("INFO received SIGTERM: stopping")
                assert (await http.get(f"{base}/readyz")).status_code == 503
                assert (await http.get(f"{base}/livez")).status_code == 200
            assert texts == ["the report"]
            assert await served.stop(0) == 0
    assert " ada " in served.log and "stopped serving" in served.log
    assert "secret-of-ada" not in served.log
