"""Interaction with the person who consents: a browser and a listener on loopback, or callbacks."""

from __future__ import annotations

import math
import subprocess
import sys
import webbrowser
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol, TypeAlias
from urllib.parse import urlsplit

import attrs
import trio

from trioxport.auth.addresses import fault_of, shown_url
from trioxport.auth.oauth.clients import check_redirect_uri
from trioxport.auth.oauth.loopback import LoopbackListener, open_listener
from trioxport.errors import InteractionRequired, OAuthError

INTERACTION_STEP: Final = "consent"
PERSON_SECONDS: Final = 300.0

OpenPage: TypeAlias = Callable[[str], Awaitable[None]]
"""An async function that shows a page to the person."""


class Consent(Protocol):
    """One question to a person: where the answer goes, and the question itself."""

    @property
    def redirect_uri(self) -> str: ...

    async def ask(self, url: str) -> str:
        """Show the page ``url``, and return the URL that the browser is redirected to, with its query.

        Raises ``InteractionRequired`` if no person can be asked here.
        """
        ...


class Interaction(Protocol):
    """The way to a person. A class of your own may use the window of an application, for example."""

    def open(self, registered: Sequence[str]) -> AbstractAsyncContextManager[Consent]:
        """Prepare one question.

        Args:
            registered: The redirect URIs that the client has registered, if they are known; one of them is best.
        """
        ...


async def open_browser(url: str) -> None:
    """Open a page in the browser of this user, without a shell. Raises ``InteractionRequired`` if there is none.

    Raises ``OAuthError`` for a URL that is not https, or http to loopback.
    """
    if fault := fault_of(url):
        raise OAuthError(f"the page {shown_url(url)} is not opened: {fault}", step=INTERACTION_STEP)
    if not await trio.to_thread.run_sync(_open_page, url, abandon_on_cancel=True):
        raise InteractionRequired("no browser can be opened here", url=url)


def _open_page(url: str) -> bool:
    if sys.platform == "darwin":  # webbrowser would hand the URL to a script
        return subprocess.run(["/usr/bin/open", url], check=False, capture_output=True).returncode == 0
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    if isinstance(browser, webbrowser.GenericBrowser) and not isinstance(browser, webbrowser.BackgroundBrowser):
        return False  # one in the terminal, which would take it over
    return browser.open(url)


@attrs.frozen
class _LoopbackConsent:
    listener: LoopbackListener
    show: OpenPage
    timeout: float

    @property
    def redirect_uri(self) -> str:
        return self.listener.redirect_uri

    async def ask(self, url: str) -> str:
        with trio.move_on_after(self.timeout):
            return await self.listener.wait(lambda: self.show(url))
        raise InteractionRequired(f"nothing came back from the browser within {self.timeout:g} s", url=url)


@attrs.frozen
class Browser:
    """The browser of this machine, which is redirected to a listener on loopback (RFC 8252, section 7.3).

    Args:
        port: The port of the listener: 0 for one that is free, and for the one that is registered if it is free.
        path: The path of the redirect URI.
        timeout: Seconds that the person has.
        show: An async function that shows the page, instead of :func:`open_browser`.
    """

    port: int = 0
    path: str = "/callback"
    timeout: float = PERSON_SECONDS
    show: OpenPage = open_browser

    @asynccontextmanager
    async def open(self, registered: Sequence[str]) -> AsyncGenerator[_LoopbackConsent]:
        async with open_listener(self._ports(registered), self.path) as listener:
            yield _LoopbackConsent(listener, self.show, self.timeout)

    def _ports(self, registered: Sequence[str]) -> list[int]:
        if self.port:
            return [self.port]
        parts = [urlsplit(uri) for uri in registered]
        return [each.port for each in parts if each.hostname == "localhost" and each.port and each.path == self.path]


@attrs.frozen
class _ManualConsent:
    redirect_uri: str
    prompt: Callable[[str], Awaitable[str]] | None
    timeout: float

    async def ask(self, url: str) -> str:
        if self.prompt is None:
            raise InteractionRequired("a person has to open a page and consent", url=url)
        with trio.move_on_after(self.timeout):
            return await self.prompt(url)
        raise InteractionRequired(f"no answer within {self.timeout:g} s", url=url)


@attrs.frozen
class OutOfBand:
    """A page that is opened somewhere else: for programs without a browser, and for web applications.

    Args:
        redirect_uri: The URI that is registered. At ``http://localhost:PORT/...`` the browser finds no server; the
            person copies the address that it shows.
        prompt: An async function that gets the URL of the page, and returns the URL that the browser was redirected
            to. Without it ``InteractionRequired`` is raised with the URL of the page, and
            :meth:`~trioxport.auth.oauth.OAuth.complete` takes the answer.
        timeout: Seconds that the person has.
    """

    redirect_uri: str
    prompt: Callable[[str], Awaitable[str]] | None = None
    timeout: float = math.inf

    def __attrs_post_init__(self) -> None:
        check_redirect_uri(self.redirect_uri)

    @asynccontextmanager
    async def open(self, registered: Sequence[str]) -> AsyncGenerator[_ManualConsent]:
        yield _ManualConsent(self.redirect_uri, self.prompt, self.timeout)
