"""The bindings to Redis keep the contract of a connection, against a real Redis server."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.support.redis_links import conversation_link, redis_link, request_link
from trioxport.codecs import JSON, MessagePack
from trioxport.testing import RULES, check_transport

OF_ONE_WIRE: Final = {2, 4, 5}
"""Order, the end and the loss of a connection: requests to several servers have none of them in common, as over HTTP in
the modern era."""

each_codec = pytest.mark.parametrize("codec", [JSON, MessagePack], ids=lambda codec: codec.name)


@each_codec
@pytest.mark.parametrize("rule", RULES)
async def test_publish_and_subscribe(rule: int, codec: Any) -> None:
    silence = 15 if rule == 10 else 2  # a heartbeat takes the system's time on its way through Redis
    await check_transport(redis_link(silence), rules=[rule], codec=codec)


@each_codec
@pytest.mark.parametrize("rule", RULES)
async def test_a_conversation_over_streams(rule: int, codec: Any) -> None:
    silence = 15 if rule == 10 else 2  # Redis itself waits for entries by the system's clock
    await check_transport(conversation_link(silence), rules=[rule], codec=codec)


@each_codec
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in OF_ONE_WIRE])
async def test_requests_over_streams(rule: int, codec: Any) -> None:
    await check_transport(request_link(codec, silence=2), rules=[rule], codec=codec)
