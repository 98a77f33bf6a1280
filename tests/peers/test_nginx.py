"""The recipe for nginx in the documentation, before two replicas, with the official SDKs as clients."""

from __future__ import annotations

import os
import re
import shutil
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import pytest
import trio
import trustme
from mcp.client.streamable_http import streamable_http_client

from tests.peers.test_http_server import PEERS, run
from tests.support.ready_programs import guarded_process
from tests.support.redis_links import HOST, free_port, redis_server
from tests.support.replicas import ReplicaProcess, replica_processes
from tests.support.sdk_programs import run_program

pytestmark = [
    pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed"),
    pytest.mark.deadline(90),
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),  # the legacy era
    pytest.mark.filterwarnings("ignore:Async generator .http(core|x)2:ResourceWarning"),  # the SDK leaves some behind
]
BOUND: Final = 60.0
PAGE: Final = Path(__file__).parents[2] / "docs/operate/more-than-one-machine.md"
AROUND: Final = """daemon off; master_process off; pid {folder}/pid; error_log stderr warn;
events {{}}
http {{
access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
{recipe}
}}
"""


def configuration(folder: Path, port: int, replicas: list[str]) -> str:
    """The recipe of the page, for this machine."""
    found = re.search(r"```nginx\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    recipe = found[1].replace("listen 443", f"listen {HOST}:{port}").replace("mcp.example.com", "localhost")
    recipe = recipe.replace("/etc/nginx/certificates", str(folder))
    for name, replica in zip(("mcp-1:8000", "mcp-2:8000"), replicas, strict=True):
        assert name in recipe
        recipe = recipe.replace(name, replica)
    return AROUND.format(folder=folder, recipe=recipe)


@asynccontextmanager
async def nginx(folder: Path, replicas: list[ReplicaProcess]) -> AsyncGenerator[str]:
    """Run nginx by the recipe before replicas. Yield the URL; ``ca.pem`` has the certificate of its authority."""
    ca, port = trustme.CA(), await free_port()
    issued = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    text = configuration(folder, port, [urlsplit(each.url).netloc for each in replicas])
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    async with guarded_process(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]) as process:
        while True:
            assert process.returncode is None
            try:
                await (await trio.open_tcp_stream(HOST, port)).aclose()
            except OSError:
                await trio.sleep(0.01)  # nothing says when it listens
            else:
                break
        yield f"https://localhost:{port}/mcp"


async def test_the_official_sdks_hold_their_conversations_also_when_a_replica_is_killed(
    tmp_path: Path, everything_server: list[str]
) -> None:
    seen: dict[str, Any] = {}

    async def python(mode: str, name: str) -> None:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        async with httpx2.AsyncClient(verify=context, timeout=30) as client:
            target = streamable_http_client(url, http_client=client)
            seen[f"{mode} {name}"] = await run_program(mode, name, lambda: target)

    async def typescript(mode: str, *server: str) -> None:
        trusting = {**os.environ, "NODE_EXTRA_CA_CERTS": str(tmp_path / "ca.pem")}
        seen[mode] = await run([everything_server[0], PEERS / "ts_http_client.mjs", url, mode, *server], trusting)

    with trio.fail_after(BOUND):
        async with (
            redis_server() as redis,
            replica_processes(f"redis://{HOST}:{redis.port}", tmp_path / "acted", 30.0) as balancer,
            nginx(tmp_path, list(balancer.replicas)) as url,
        ):
            async with trio.open_nursery() as nursery:
                for name in ("progress", "questions", "cancellation"):
                    nursery.start_soon(python, "legacy", name)
                nursery.start_soon(typescript, "legacy")
                nursery.start_soon(typescript, "modern", "", "replicas")
            await balancer.replicas[0].kill()
            await python("auto", "progress")
            await python("legacy", "logs")
    assert [number for number, *_ in seen["legacy progress"][0]] == [1, 2, 3, 4, 5]
    assert [number for number, *_ in seen["auto progress"][0]] == [1, 2, 3, 4, 5]
    assert [each["structured_content"]["result"] for each in seen["legacy questions"]] == ["accept blue", "It"]
    assert "one" in seen["legacy cancellation"]["result"]
    assert [each["data"] for each in seen["legacy logs"][0]] == ["one", {"two": 2}]
    for mode in ("legacy", "modern"):
        assert seen[mode]["progress"] == [1, 2, 3] and "blue" in seen[mode]["asked"]
