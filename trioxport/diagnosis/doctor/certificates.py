"""The certificate of a server: its dates, its names and its issuer."""

from __future__ import annotations

import ssl
import time
from importlib.util import find_spec
from typing import Any, Final

import trio

from trioxport.diagnosis.doctor.findings import ServerFindings

RENEWAL_DAYS: Final = 14
"""Days before the end of a certificate from which on there is a warning."""
PEEK_SECONDS: Final = 5.0

_connect: Final = trio.open_tcp_stream
_DAY: Final = 86400.0
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE")
_ENDED: Final = "UNEXPECTED_EOF_WHILE_READING"
_REMEDIES: Final = {
    10: ("the certificate has expired", "Renew the certificate of the server"),
    9: ("the certificate is not valid yet", "Check the clocks of this machine and of the server"),
    18: ("the certificate is signed by itself", "Trust it by --ca FILE, if it is yours"),
    19: ("the chain ends in an authority that is not trusted", "Trust the authority by --ca FILE, if it is yours"),
    20: (
        "the issuer of the certificate is not known",
        "Let the server send its whole chain, or trust its authority by --ca FILE",
    ),
    21: ("the server does not send the chain of its certificate", "Let the server send its whole chain"),
    62: ("the certificate is for another name", "Use a name that the certificate has, or renew it with this one"),
    64: ("the certificate is for another address", "Use a name that the certificate has"),
}
"""The findings and remedies by OpenSSL's code of verification."""


def check_certificate(certificate: Any, handshake: str, findings: ServerFindings) -> None:
    """Add the finding of a certificate that was verified, as :meth:`ssl.SSLSocket.getpeercert` has it."""
    if not certificate:
        findings.add("tls", "warning", f"{handshake}; the certificate is not verified", "Use a context that verifies")
        return
    names = ", ".join(name for _kind, name in certificate.get("subjectAltName", ()))
    left = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / _DAY
    issuer = dict(part[0] for part in certificate.get("issuer", ()))
    by = issuer.get("organizationName") or issuer.get("commonName") or "an authority without a name"
    text = f"{handshake}; certificate for {names}, issued by {by}, valid for {left:.0f} days"
    if left < RENEWAL_DAYS:
        findings.add("tls", "warning", text, "Renew the certificate of the server soon")
    else:
        findings.add("tls", "ok", text)


async def explain_refusal(
    error: BaseException | None, host: str, port: int, findings: ServerFindings, *, direct: bool
) -> None:
    """Add the finding of a handshake that failed, with the facts of the certificate where it can be read."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason, remedy = _REMEDIES.get(error.verify_code, (error.verify_message, "Check the certificate of the server"))
        facts = await _facts(host, port) if direct else None
        findings.add("tls", "failed", reason if facts is None else f"{reason}: {facts}", remedy)
    elif isinstance(error, ssl.SSLError) and error.reason != _ENDED:
        if error.reason in _NO_TLS:
            findings.add("tls", "failed", "the server does not speak TLS at this port", "Check the port and the scheme")
        else:
            findings.add("tls", "failed", f"the handshake failed: {error.reason or error}", "Look at the server's log")
    else:
        findings.add("tls", "failed", "the server closed the connection", "Check the port and the scheme")


async def _facts(host: str, port: int) -> str | None:
    """Names, issuer and dates of a certificate that cannot be verified; nothing is sent to its server.

    None if it cannot be had, or cryptography is not installed.
    """
    if find_spec("cryptography") is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with trio.fail_after(PEEK_SECONDS):
            async with await _connect(host, port) as stream:
                wrapped = trio.SSLStream(stream, context, server_hostname=host, https_compatible=True)
                await wrapped.do_handshake()
                der = wrapped.getpeercert(binary_form=True)
        return _described(der)
    except (OSError, trio.TooSlowError, trio.BrokenResourceError, ValueError):  # ValueError: it cannot be read
        return None


def _described(der: bytes) -> str:
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(der)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = ", ".join(str(name.value) for name in extension.value)
    except x509.ExtensionNotFound:
        names = "no names"
    begin, end = certificate.not_valid_before_utc.date(), certificate.not_valid_after_utc.date()
    return f"for {names}, issued by {certificate.issuer.rfc4514_string()}, valid from {begin} to {end}"
