"""A Redis server between clients and servers: its greeting, and the servers of the service behind it."""

from __future__ import annotations

from typing import Final

import trio

from trioxport.abc import ConnectionSettings
from trioxport.diagnosis.doctor.findings import ServerFindings
from trioxport.diagnosis.doctor.network import STEP_SECONDS
from trioxport.errors import PermissionDenied, TransportError, UsageError
from trioxport.transports.redis import Redis

STEPS: Final = ("redis", "service")


def may_connect(target: Redis, settings: ConnectionSettings, findings: ServerFindings) -> bool:
    """Whether a connection to Redis is possible and allowed at all."""
    try:
        target.check(settings)
    except UsageError as error:
        findings.fail("redis", error)
        return False
    return True


async def check_redis(target: Redis, findings: ServerFindings) -> bool:
    """Greet Redis, and count the servers of the service; returns whether there is one."""
    from trioxport.transports.redis.client import no_server  # which takes the extra
    from trioxport.transports.redis.link import open_link

    step = "redis"
    findings.begin()
    try:
        with trio.fail_after(STEP_SECONDS):
            async with open_link(target, str(target), watched=False) as link:
                facts = await link.command(b"HELLO")
                user = target.username or "the default user"
                findings.add("redis", "ok", f"Redis {facts[b'version'].decode()} accepts {user}", timed=True)
                step = "service"
                findings.begin()
                [_channel, count] = await link.command(b"PUBSUB", b"NUMSUB", target.presence_channel)
        if not count:
            raise no_server(target, str(target))
    except trio.TooSlowError:
        remedy = "Check the port, and the load of Redis"
        findings.add(step, "failed", "Redis does not answer", remedy, timed=True)
    except PermissionDenied as error:
        remedy = "Give the user the permissions of the documentation, page Redis"
        findings.add(step, "failed", error.reason, remedy, timed=True)
    except TransportError as error:
        findings.fail(step, error)
    else:
        servers = "1 server" if count == 1 else f"{count} servers"
        findings.add("service", "ok", f"{servers} of the service {target.service!r}", timed=True)
        return True
    findings.skip(STEPS[STEPS.index(step) + 1 :], "an earlier step failed")
    return False
