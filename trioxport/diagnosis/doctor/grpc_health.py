"""The health of a server of gRPC, by its own word."""

from __future__ import annotations

import trio

from trioxport.abc import ConnectionSettings
from trioxport.diagnosis.doctor.findings import ServerFindings
from trioxport.diagnosis.doctor.network import STEP_SECONDS
from trioxport.errors import AuthenticationError, PermissionDenied, TransportError
from trioxport.transports.grpc import Grpc, ServingStatus


async def check_health(target: Grpc, *, allow_plaintext: bool, findings: ServerFindings) -> bool:
    """Ask the standard health service, which a server need not have; returns whether to go on."""
    findings.begin()
    settings = ConnectionSettings("client", str(target), allow_plaintext=allow_plaintext)
    try:
        with trio.fail_after(STEP_SECONDS):
            status = await target.check_health(settings)
    except trio.TooSlowError:
        text, remedy = "the server does not answer a health check", "Check that the server speaks gRPC at this port"
        findings.add("health", "failed", text, remedy, timed=True)
        return False
    except (AuthenticationError, PermissionDenied):
        text, remedy = "the health service demands credentials", "Let health checks in without: probes have none"
        findings.add("health", "warning", text, remedy, timed=True)
    except TransportError as error:
        findings.fail("health", error)
        return False
    else:
        _judge(status, findings)
    return True


def _judge(status: ServingStatus | None, findings: ServerFindings) -> None:
    if status is None:
        findings.add("health", "ok", "the server has no health service", timed=True)
    elif status is ServingStatus.SERVING:
        findings.add("health", "ok", "the server says SERVING", timed=True)
    elif status is ServingStatus.NOT_SERVING:
        remedy = "Wait until the server has started, or look at its log: load balancers send it no calls"
        findings.add("health", "failed", "the server says NOT_SERVING", remedy, timed=True)
    else:
        text = f"the health service says {status.name} of the server as a whole"
        remedy = 'Let the server set the status of the service "", which probes ask for'
        findings.add("health", "warning", text, remedy, timed=True)
