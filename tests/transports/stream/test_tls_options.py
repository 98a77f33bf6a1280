"""Certificate options, shared by all transports over TLS."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from trioxport import ServerUnreachable, UsageError, open_transport
from trioxport.auth import Secret, TLSOptions
from trioxport.transports.http import Http
from trioxport.transports.stream import Tls


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def encrypted(authority: trustme.CA, folder: Path) -> tuple[str, str]:
    """The files of a certificate, and of its key under the password ``pw``."""
    made = authority.issue_cert("me.example")
    key = serialization.load_pem_private_key(made.private_key_pem.bytes(), None)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    locked = key.private_bytes(serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"pw"))
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    (folder / "key.pem").write_bytes(locked)
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_an_encrypted_key_needs_its_password_and_nobody_is_asked_for_it(authority: trustme.CA, tmp_path: Path) -> None:
    cert, key = encrypted(authority, tmp_path)
    TLSOptions(cert=cert, key=key, password="pw").client_context()
    TLSOptions(cert=cert, key=key, password=Secret("pw")).server_context()
    with pytest.raises(UsageError, match="the private key is encrypted"):
        TLSOptions(cert=cert, key=key).client_context()
    with pytest.raises(UsageError, match="cannot use the certificate files") as caught:
        TLSOptions(cert=cert, key=key, password="hunter2").client_context()
    assert "hunter2" not in str(caught.value) + repr(TLSOptions(password="hunter2"))


async def test_tls_addresses_take_a_password_too(authority: trustme.CA, tmp_path: Path) -> None:
    cert, key = encrypted(authority, tmp_path)
    for password, failure in (("pw", ServerUnreachable), ("hunter2", UsageError), (None, UsageError)):
        with pytest.raises(failure):
            async with open_transport(Tls("127.0.0.1", 1, cert=cert, key=key, password=password)):
                pass


def test_a_context_takes_the_place_of_files() -> None:
    with pytest.raises(UsageError, match="takes the place of"):
        TLSOptions(ca="ca.pem", context=ssl.create_default_context())
    with pytest.raises(UsageError, match="needs its certificate"):
        TLSOptions(key="key.pem").client_context()


async def test_files_that_cannot_be_used_are_told_with_the_target() -> None:
    for target in (
        Http("https://127.0.0.1:1/", tls=TLSOptions(ca="nowhere.pem")),
        Tls("127.0.0.1", 1, ca="nowhere.pem"),
    ):
        with pytest.raises(UsageError, match=r"^(https|tls)://127\.0\.0\.1:1.*cannot use the certificate files"):
            async with open_transport(target):
                pass


def test_a_client_checks_certificates() -> None:
    made = TLSOptions().client_context("http/1.1")
    assert made.verify_mode is ssl.CERT_REQUIRED
    assert made.check_hostname


def unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def unnamed() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    return context


@pytest.mark.parametrize(
    ("context", "text"),
    [
        (unchecked(), "does not check certificates"),
        (unnamed(), "does not check host names"),
        (ssl.create_default_context(), ""),
    ],
)
def test_a_context_that_checks_nothing_is_the_callers_own_and_told(
    context: ssl.SSLContext, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "trioxport"):
        assert TLSOptions(context=context).client_context("h2") is context
        assert TLSOptions(context=context).server_context() is context
    assert len(caplog.records) == bool(text)
    assert text in caplog.text
