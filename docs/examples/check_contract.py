"""The contract of a connection, tried on the custom transport: two of the ten rules, on both sides."""

import logging

import trio
from custom_transport import Prefixed

from trioxport.testing import check_transport, tcp_pair


async def main() -> None:
    logging.getLogger("trioxport").setLevel(logging.CRITICAL)  # the checks break connections, which is logged
    report = await check_transport(tcp_pair(lambda port: Prefixed("127.0.0.1", port)), rules=[4, 5])
    for result in report.results:
        print(f"rule {result.rule}, {result.name}: {result.outcome}")


trio.run(main)
