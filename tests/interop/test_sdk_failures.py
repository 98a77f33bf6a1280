"""Failures of the connection under the official SDK's client say what happened."""

from __future__ import annotations

import sys

import mcp.types as types
import pytest
from mcp import Client, MCPError

from trioxport.interop.mcp_sdk import sdk_transport
from trioxport.transports.stdio import Stdio

DIES = "print('KeyError: API_KEY', file=sys.stderr); sys.exit(3)"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("program", [f"import sys; {DIES}", f"import sys; sys.stdin.readline(); {DIES}"])
async def test_a_server_that_dies_at_start_is_one_error_with_its_exit_code_and_stderr(program: str, mode: str) -> None:
    target = Stdio(sys.executable, ["-c", program])
    with pytest.raises(MCPError, match="exited with code 3") as raised:
        async with Client(sdk_transport(target), mode=mode):
            pass
    error = raised.value.error
    assert "KeyError: API_KEY" in error.message
    assert (error.code, error.data["error"], error.data["exit_code"]) == (types.CONNECTION_CLOSED, "ConnectionLost", 3)


async def test_an_exception_of_the_block_is_not_replaced() -> None:
    target = Stdio(sys.executable, ["-c", "import sys; sys.stdin.read()"])
    with pytest.raises(ValueError, match="mine"):
        async with sdk_transport(target):
            raise ValueError("mine")
