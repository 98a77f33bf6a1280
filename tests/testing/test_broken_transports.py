"""The kit finds what is wrong with a transport: each fault is caught, by a message that names it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Generator

import pytest

from tests.support.broken_transports import FAULTS, LeaksADescriptor
from tests.support.reference_transport import pair_of
from trioxport.codecs import MessagePack
from trioxport.testing import ContractBroken, check_transport, transport_checks


@pytest.fixture(autouse=True)
def _quiet() -> Generator[None]:
    """Bad messages are logged."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def _closing_what_leaks() -> Generator[None]:
    yield
    while LeaksADescriptor.opened:
        os.close(LeaksADescriptor.opened.pop())


@pytest.mark.parametrize("codec", [None, MessagePack], ids=["JSON", "MessagePack"])
async def test_the_reference_transport_passes_every_check(codec: type | None) -> None:
    report = await check_transport(pair_of(timeout=5.0), **({} if codec is None else {"codec": codec}))  # type: ignore[arg-type] # a codec
    assert report.skipped == []
    assert report.hints == []


@pytest.mark.usefixtures("_closing_what_leaks")
@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_named(name: str) -> None:
    checks = [check for check in transport_checks() if FAULTS[name].check in (None, check.name)]
    with pytest.raises(ContractBroken) as caught:
        await check_transport(FAULTS[name].make_pair, checks=checks)
    words = FAULTS[name].says
    assert re.search("(?s)" + ".*".join(map(re.escape, words)), str(caught.value)), caught.value
