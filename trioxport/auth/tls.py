"""TLS: trusted certificates and the own one, the same options for every transport that speaks TLS."""

from __future__ import annotations

import math
import os
import ssl
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, NoReturn

import attrs

from trioxport._diagnostics import logger
from trioxport._diagnostics.validators import PATH, instance_of
from trioxport.auth.secret import Secret, secret
from trioxport.errors import UsageError

RENEWAL_CHECK_SECONDS: Final = 1.0
"""Seconds, at least, between two checks whether the files of a server's certificate have changed."""
SSL_CONTEXT: Final = instance_of(ssl.SSLContext, "an ssl.SSLContext").or_none()
"""The check of an option that takes the application's own context."""


@attrs.frozen
class TLSOptions:
    """Trusted and own certificates. The files are read each time that a connection is opened.

    No option turns the verification of certificates off. The application's own context is used as it is, even if it
    verifies nothing, because making one takes several deliberate steps; a warning is logged for each connection.

    Args:
        ca: The file of the certificates to trust. A client trusts those of this machine by default; a server with this
            option requires a client certificate.
        cert: The file of this side's own certificate; a server must have one.
        key: The file of its private key, if it is not in ``cert``.
        password: The password of the private key, if that is encrypted.
        context: The application's own context, in place of all of these.

    Raises:
        UsageError: A context comes with files.
    """

    ca: str | None = attrs.field(default=None, validator=PATH.or_none())
    cert: str | None = attrs.field(default=None, validator=PATH.or_none())
    key: str | None = attrs.field(default=None, validator=PATH.or_none())
    password: Secret | None = attrs.field(default=None, converter=attrs.converters.optional(secret), kw_only=True)
    context: ssl.SSLContext | None = attrs.field(default=None, validator=SSL_CONTEXT, repr=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.context is not None and (self.ca or self.cert or self.key or self.password):
            raise UsageError("an ssl_context takes the place of certificate files: pass one or the others")

    def client_context(self, *alpn: str) -> ssl.SSLContext:
        """The context of a client that speaks the protocols ``alpn``. Raises ``UsageError`` for unusable files.

        The application's own context is not changed.
        """
        if self.context is not None:
            _warn_if_unverified(self.context)
            return self.context
        context = self._made(ssl.Purpose.SERVER_AUTH)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def server_context(self, *alpn: str) -> ssl.SSLContext:
        """The context of a server that speaks the protocols ``alpn``, the preferred one first.

        The application's own context is used as it is. Raises ``UsageError`` for unusable files, or without a
        certificate.
        """
        if self.context is not None:
            return self.context
        if self.cert is None:
            raise UsageError("a TLS server needs a certificate", hint="Pass cert or ssl_context")
        context = self._made(ssl.Purpose.CLIENT_AUTH)
        if self.ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def _made(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        if self.key is not None and self.cert is None:
            raise UsageError("a private key needs its certificate", hint="Pass cert")
        try:
            context = ssl.create_default_context(purpose, cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key, self.password.reveal() if self.password else _ask)
        except OSError as error:
            raise UsageError(f"cannot use the certificate files: {self._unreadable() or error}") from error
        return context

    def _unreadable(self) -> str | None:
        """The file that cannot be read, with the reason, which OpenSSL leaves out; None if all can be read."""
        for name in (self.ca, self.cert, self.key):
            try:
                with open(name or os.devnull, "rb"):
                    pass
            except OSError as error:
                return f"{name}: {error.strerror}"
        return None


@contextmanager
def about_target(target: str) -> Generator[None]:
    """Set the target of a ``UsageError`` about its certificates."""
    try:
        yield
    except UsageError as error:
        error.target = target
        raise


def server_contexts(tls: TLSOptions | ssl.SSLContext, *alpn: str) -> Callable[[], ssl.SSLContext]:
    """A function that returns the context for each connection of a server. Raises ``UsageError`` as ``server_context``.

    Changed files are read again, after a check at most once a second. If the new ones are unusable, that is logged and
    the old context stays in use. The application's own context is used as it is.
    """
    if isinstance(tls, ssl.SSLContext):
        return lambda: tls
    if tls.context is not None:
        return tls.server_context
    return _RenewedContext(tls, alpn).current


class _RenewedContext:
    """The context of a server, which is made again when its files change."""

    def __init__(self, options: TLSOptions, alpn: tuple[str, ...]) -> None:
        self._options = options
        self._alpn = alpn
        self._stamps = self._read_stamps()
        self._context = options.server_context(*alpn)
        self._checked_at = -math.inf

    def current(self) -> ssl.SSLContext:
        now = time.monotonic()
        if now - self._checked_at >= RENEWAL_CHECK_SECONDS:
            self._checked_at = now
            self._renew()
        return self._context

    def _renew(self) -> None:
        stamps = self._read_stamps()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            self._context = self._options.server_context(*self._alpn)
        except UsageError as error:
            logger.warning("the renewed certificate is not used, the old one still is: %s", error)
        else:
            logger.info("the certificate %s was renewed", self._options.cert)

    def _read_stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Stamps of the files; they differ after one of them was replaced or written."""
        files = (self._options.cert, self._options.key, self._options.ca)
        return tuple(None if file is None else _stamp(file) for file in files)


def _stamp(file: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _ask() -> NoReturn:
    """Raise ``UsageError`` in place of OpenSSL's prompt on the terminal, at which a program would wait for ever."""
    raise UsageError("the private key is encrypted", hint="Pass its password")


def _warn_if_unverified(context: ssl.SSLContext) -> None:
    if context.verify_mode is not ssl.CERT_REQUIRED:
        logger.warning("the ssl_context does not check certificates: any host on the way can act as the server")
    elif not context.check_hostname:
        logger.warning("the ssl_context does not check host names: any trusted certificate will do")
