"""The binding to Redis keeps the contract of a connection, against a real Redis server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.redis_links import redis_link
from trioxport.codecs import JSON, MessagePack
from trioxport.testing import check_transport
from trioxport.testing.rules import RULES


@pytest.mark.parametrize("codec", [JSON, MessagePack], ids=lambda codec: codec.name)
@pytest.mark.parametrize("rule", RULES)
async def test_the_binding_keeps_the_contract(rule: int, codec: Any) -> None:
    await check_transport(redis_link(silence=1), rules=[rule], codec=codec)
