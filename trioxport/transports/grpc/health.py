"""The standard health service of gRPC: ``grpc.health.v1.Health``, methods ``Check`` and ``Watch``."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import trio

from trioxport.framing.protobuf import bytes_of, number_field

_SERVICE: Final = 1
_STATUS: Final = 1


class ServingStatus(IntEnum):
    """The status of a service."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class HealthService:
    """The health of the services of one server.

    Args:
        services: Their names; the empty one stands for the server as a whole.
    """

    def __init__(self, services: frozenset[str]) -> None:
        self._services = services | {""}
        self._is_stopping = False
        self._changed = trio.lowlevel.ParkingLot()

    def stop(self) -> None:
        """Let all services be ``NOT_SERVING`` from now on."""
        self._is_stopping = True
        self._changed.unpark_all()

    def status_of(self, service: str) -> ServingStatus:
        """The status of a service now."""
        if service not in self._services:
            return ServingStatus.SERVICE_UNKNOWN
        return ServingStatus.NOT_SERVING if self._is_stopping else ServingStatus.SERVING

    async def changed(self) -> None:
        """Wait for a change."""
        await self._changed.park()


def service_in(request: bytes) -> str:
    """The service that a request names. Raises ``ValueError``."""
    return bytes_of(request, _SERVICE).decode()


def status_message(status: ServingStatus) -> bytes:
    """A response with a status."""
    return number_field(_STATUS, status)
