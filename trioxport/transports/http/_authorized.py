"""Credentials on requests to the endpoint, and another attempt after 401."""

from __future__ import annotations

import attrs

from trioxport.auth import Credentials
from trioxport.transports.http._wire import Asked, Carry, Head, Source


@attrs.frozen
class Authorized:
    """Carries requests with ``credentials``; one that is refused with 401 is sent once more if that makes sense.

    A header that a message brings along goes before one of the credentials.
    """

    inner: Carry
    credentials: Credentials

    async def carry(self, asked: Asked) -> tuple[Head, Source]:
        shown = await self.credentials.headers()
        head, source = await self.inner(attrs.evolve(asked, headers={**shown, **asked.headers}))
        if head.status_code != 401 or any(name in asked.headers for name in shown):
            return head, source
        try:
            again = await self.credentials.refused(shown)
            if again:
                shown = await self.credentials.headers()
        except BaseException:
            await source.aclose()
            raise
        if not again:
            return head, source
        await source.aclose()
        return await self.inner(attrs.evolve(asked, headers={**shown, **asked.headers}))
