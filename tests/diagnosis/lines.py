"""Recordings that tests write line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NOON = 1_800_000_000.0


def line(at: float, sender: str, message: Any, connection: str = "a", **more: Any) -> str:
    """A line of a tap at the server's side, ``at`` seconds after the beginning."""
    payload = message if isinstance(message, str) else json.dumps({"jsonrpc": "2.0", **message})
    record = {
        "time": NOON + at,
        "direction": "received" if sender == "client" else "sent",
        "role": "server",
        "target": "http://127.0.0.1:8001/mcp",
        "connection": connection,
        "payload": payload,
        **more,
    }
    return json.dumps(record)


def request(number: int | str, method: str, **params: Any) -> dict[str, Any]:
    return {"id": number, "method": method, "params": params}


def recorded(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{each}\n" for each in lines), encoding="utf-8")
    return str(path)


CONVERSATION = (
    line(0.0, "client", request(0, "initialize", clientInfo={"name": "c"})),
    line(0.25, "server", {"id": 0, "result": {}}),
    line(0.3, "client", {"method": "notifications/initialized"}),
    line(1.0, "client", request(1, "tools/call", name="slow", _meta={"progressToken": "p"})),
    line(1.1, "client", request(2, "tools/call", name="broken")),
    line(1.5, "server", {"method": "notifications/progress", "params": {"progressToken": "p", "progress": 1}}),
    line(1.6, "server", {"id": 2, "result": {"isError": True, "content": []}}),
    line(1.7, "server", request(1, "sampling/createMessage")),
    line(1.9, "client", {"id": 1, "result": {}}),
    line(3.0, "server", {"id": 1, "result": {}}),
    line(3.1, "client", request(3, "resources/read", uri="file:///x"), "b"),
    line(3.2, "client", {"method": "notifications/cancelled", "params": {"requestId": 3}}, "b"),
    line(3.3, "client", request("four", "no/such"), "b"),
    line(3.4, "server", {"id": "four", "error": {"code": -32601, "message": "Method not found"}}, "b"),
    line(3.5, "client", request(5, "tools/list"), "b"),
)
"""All that can become of a request, over two connections."""
