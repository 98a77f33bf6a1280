"""``trioxport serve --redis``: workers of one machine serve the sessions of each other."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.raw_http import initialized, request
from tests.support.redis_links import HOST, redis_server
from tests.support.serve_command import serve_command


@pytest.mark.deadline(60)
async def test_workers_that_share_a_redis_serve_sessions(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text(
        "from trioxport import Request, Response\n\n\n"
        "async def server(connection):\n"
        "    async for message in connection.rx:\n"
        "        if isinstance(message, Request):\n"
        "            result = {'protocolVersion': '2025-11-25', 'capabilities': {}, 'serverInfo': {}}\n"
        "            await connection.tx.send(Response(message.id, result))\n"
    )
    async with redis_server() as redis:
        options = ("--workers", "2", "--redis", f"redis://{HOST}:{redis.port}", "--no-access-log")
        async with serve_command("echo.py:server", "http://127.0.0.1:0/mcp", *options, folder=tmp_path) as served:
            await served.until(r" with 2 workers\n")
            url = served.log.split(" serving ")[-1].split()[0]
            clients = [await initialized(url) for _ in range(4)]
            for number in range(8):
                for client in clients:
                    async with client.post(request("ping", number)) as reply:
                        assert reply.status == 200
            assert await served.stop(signal.SIGTERM) == 0
