"""A stdio server of the legacy era without a library, which starts fast: its tool ``pid`` returns its process id."""

from __future__ import annotations

import json
import os
import sys

INITIALIZED = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "plain", "version": "1"},
}
RESULTS = {"initialize": INITIALIZED, "tools/call": {"content": [], "structuredContent": {"pid": os.getpid()}}}

for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        found = RESULTS.get(message["method"])
        answer = {"error": {"code": -32601, "message": "Method not found"}} if found is None else {"result": found}
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)  # noqa: T201 (the wire)
