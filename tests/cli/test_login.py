"""The commands for OAuth: login, logout, token and doctor auth."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.support.authorization_server import Site, serving_site
from trioxport.auth.oauth import interaction
from trioxport.cli import login as login_module
from trioxport.cli import main


class Background:
    """A site in a thread of its own, for commands that run Trio by themselves."""

    def __init__(self) -> None:
        self.site = Site()
        self._is_there = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,))

    async def _run(self) -> None:
        async with serving_site() as self.site:
            self._token = trio.lowlevel.current_trio_token()
            self._over = trio.Event()
            self._is_there.set()
            await self._over.wait()

    def start(self) -> Site:
        self._thread.start()
        assert self._is_there.wait(10)
        return self.site

    def stop(self) -> None:
        self._token.run_sync_soon(self._over.set)
        self._thread.join(10)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Site]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def open_page(url: str) -> bool:
        with httpx.Client(trust_env=False, follow_redirects=True) as client:
            client.get(url)
        return True

    monkeypatch.setattr(interaction, "_open_page", open_page)
    background = Background()
    found = background.start()
    yield found
    background.stop()


Capture = pytest.CaptureFixture[str]


def test_a_login_is_used_by_later_commands(site: Site, capsys: Capture) -> None:
    site.challenge = 'Bearer scope="tools"'
    assert main(["login", site.server]) == 0
    out, err = capsys.readouterr()
    assert out == (
        f"logged in at {site.server} by {site.issuer}, client client-1, scopes tools, for 3600 s, then refreshed\n"
    )
    assert err.startswith("trioxport: opening the browser")
    assert main(["call", site.server, "tools/list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tools"] == []
    assert main(["token", site.server]) == 0
    assert capsys.readouterr().out.strip() in site.access
    assert main(["token", site.server, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["access_token"] in site.access and 3590 < found["expires_in"] <= 3600
    assert len(site.pages) == 1


def test_a_token_that_is_bound_to_a_key_is_not_printed(site: Site, capsys: Capture) -> None:
    site.dpop = True
    assert main(["login", site.server]) == 0
    assert main(["token", site.server]) == 2
    out, err = capsys.readouterr()
    assert "bound to a key" in err and "access-" not in out + err
    assert main(["call", site.server, "tools/list"]) == 0


def test_a_login_is_refreshed_by_later_commands_and_ends_with_a_logout(site: Site, capsys: Capture) -> None:
    site.lifetime = 1.0
    assert main(["login", site.server, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["issuer"], found["client_id"], found["refreshes"]) == (site.issuer, "client-1", True)
    site.revoke_access()
    assert main(["call", site.server, "tools/list"]) == 0
    assert site.counts["refresh_token"] >= 1
    capsys.readouterr()
    for text in ("logged out at", "there was no login at"):
        assert main(["logout", site.server]) == 0
        assert capsys.readouterr().out == f"{text} {site.server}\n"
    assert main(["token", site.server]) == 3
    assert f"Run trioxport login {site.server}" in capsys.readouterr().err
    assert main(["login", site.server]) == 0
    assert site.counts["registrations"] == 1
    assert main(["logout", site.server, "--client"]) == 0
    assert main(["login", site.server]) == 0
    assert site.counts["registrations"] == 2


def test_a_login_that_has_ended_says_what_to_do(site: Site, capsys: Capture) -> None:
    site.lifetime = 0.2
    assert main(["login", site.server]) == 0
    site.refresh.clear()
    time.sleep(0.25)
    assert main(["call", site.server, "tools/list"]) == 3
    assert "Run trioxport login URL" in capsys.readouterr().err


def test_a_damaged_login_can_be_forgotten(site: Site, capsys: Capture, tmp_path: Path) -> None:
    assert main(["login", site.server]) == 0
    for file in (tmp_path / "trioxport" / "credentials").glob("*.json"):
        file.write_text("{")
    assert main(["token", site.server]) == 3
    assert main(["logout", site.server]) == 0
    assert capsys.readouterr().out.endswith(f"logged out at {site.server}\n")


def test_other_credentials_take_precedence(site: Site, capsys: Capture) -> None:
    assert main(["login", site.server]) == 0
    for option in (["--token", "mine"], ["--header", "Authorization: Bearer mine"]):
        assert main(["call", site.server, "tools/list", *option]) == 3
    assert "401" in capsys.readouterr().err
    assert site.counts["refresh_token"] == 0


def test_without_a_browser_the_address_is_pasted(site: Site, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    class Person(io.StringIO):
        def readline(self, *_: Any) -> str:  # type: ignore[override]  # of the same use
            page = capsys.readouterr().err.splitlines()[1]
            with httpx.Client(trust_env=False) as client:
                return client.get(page).headers["location"] + "\n"

    monkeypatch.setattr(sys, "stdin", Person())
    assert main(["login", site.server, "--no-browser"]) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert main(["logout", site.server]) == 0
    assert main(["login", site.server, "--no-browser"]) == 2
    assert "no address was given" in capsys.readouterr().err


def test_a_code_is_shown_for_another_device(site: Site, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.authorization_server import answer
    from trioxport.auth.oauth.steps import OAuthRequest, OAuthResponse

    async def begin(_: OAuthRequest) -> OAuthResponse:
        await trio.lowlevel.checkpoint()
        page = f"{site.issuer}/device"
        return answer({"device_code": "d", "user_code": "AB-12", "verification_uri": page, "interval": 1})

    site.metadata["device_authorization_endpoint"] = f"{site.issuer}/device_authorization"
    site.answers["/device_authorization"] = begin
    assert main(["login", site.server, "--device"]) == 0
    assert f"open {site.issuer}/device on any device, and enter the code AB-12" in capsys.readouterr().err


def test_a_machine_without_a_browser_says_so(site: Site, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    people = list[threading.Timer]()

    def by_other_means(url: str) -> None:
        with httpx.Client(trust_env=False, follow_redirects=True) as client:
            client.get(url)

    def no_browser(url: str) -> bool:
        people.append(threading.Timer(0.2, by_other_means, [url]))
        people[0].start()
        return False

    monkeypatch.setattr(interaction, "_open_page", no_browser)
    assert main(["login", site.server]) == 0
    people[0].join()
    assert "use --no-browser or --device" in capsys.readouterr().err


def test_a_client_that_is_registered_by_hand(site: Site, capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    options = ["--client-id", "mine", "--client-secret-file", str(tmp_path / "secret"), "--scope", "a"]
    assert main(["login", site.server, *options]) == 0
    assert "client mine, scopes a" in capsys.readouterr().out
    assert site.forms[-1]["client_id"] == "mine"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["login", "http://mcp.test/mcp"], "not encrypted"),
        (["login", "mcp.test"], "https://HOST/PATH"),
        (["token", "javascript:x"], "its scheme is 'javascript'"),
        (["login", "https://mcp.test", "--device", "--no-browser"], "keep one of them"),
        (["login", "https://mcp.test", "--client-secret-file", __file__], "name the client as well"),
        (["login", "https://mcp.test", "--issuer", "http://as.test"], "not encrypted"),
        (["doctor", "nothing"], "is no URL, and there is no configuration file here"),
    ],
)
def test_arguments_that_cannot_work(arguments: list[str], text: str, capsys: Capture) -> None:
    assert main(arguments) == 2
    assert text in capsys.readouterr().err


def test_a_server_that_is_not_there(capsys: Capture) -> None:
    assert main(["login", "http://127.0.0.1:9/mcp"]) == 3
    assert "http://127.0.0.1:9/mcp: the server cannot be reached: ConnectError" in capsys.readouterr().err


# doctor auth


def test_the_doctor_finds_nothing_wrong(site: Site, capsys: Capture) -> None:
    assert main(["doctor", "auth", site.server, "--register"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "ok      request without a token",
        "ok      protected resource metadata",
        "ok      authorization server metadata",
        "ok      PKCE",
        "ok      client registration",
        "ok      client registration",
    ]
    assert lines[-1].endswith("registered the client client-1, which authenticates by none")


def test_the_doctor_names_the_section_that_is_broken(site: Site, capsys: Capture) -> None:
    site.metadata |= {
        "code_challenge_methods_supported": None,
        "authorization_response_iss_parameter_supported": None,
        "registration_endpoint": None,
        "authorization_endpoint": None,
        "dpop_signing_alg_values_supported": ["RS256"],
    }
    site.challenge = "Bearer"
    assert main(["doctor", "auth", site.server]) == 1
    out = capsys.readouterr().out
    for text in (
        "note    request without a token: 401; the challenge names no resource_metadata",
        "FAILED  PKCE: its metadata lacks code_challenge_methods_supported",
        "(MCP 2026-07-28, authorization code protection)",
        "note    client registration: clients have to be registered by hand (RFC 7591)",
        "(RFC 9207, section 3)",
        "(RFC 8414, section 2)",
        "(RFC 9449, section 5.1)",
    ):
        assert text in out, text


def test_the_doctor_ends_where_nothing_more_can_be_found(site: Site, capsys: Capture) -> None:
    site.challenge = "Basic realm=x"
    site.resource_metadata["resource"] = "https://evil.test/mcp"
    assert main(["doctor", "auth", site.server, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(each["verdict"], each["section"]) for each in found] == [
        ("failed", "RFC 6750, section 3"),
        ("failed", "RFC 9728, section 3.3"),
    ]
    site.resource_metadata = {"authorization_servers": [f"{site.issuer}/other"]}
    assert main(["doctor", "auth", site.server]) == 1
    assert "FAILED  authorization server metadata" in capsys.readouterr().out


def test_the_doctor_shows_a_refused_registration(site: Site, capsys: Capture) -> None:
    from tests.support.authorization_server import refuse
    from trioxport.auth.oauth.steps import OAuthRequest, OAuthResponse

    async def refusing(_: OAuthRequest) -> OAuthResponse:
        await trio.lowlevel.checkpoint()
        return refuse("invalid_redirect_uri")

    site.answers["/register"] = refusing
    site.metadata["client_id_metadata_document_supported"] = True
    assert main(["doctor", "auth", site.server, "--register"]) == 1
    out = capsys.readouterr().out
    assert "client id metadata documents and dynamic registration" in out
    assert "FAILED  client registration: the authorization server refuses with invalid_redirect_uri" in out


def test_the_doctor_looks_at_a_server_without_authorization(capsys: Capture) -> None:
    command = [sys.executable, "-m", "trioxport", "serve-demo", "http://127.0.0.1:0/mcp"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split()[1]
        assert main(["doctor", "auth", address]) == 1
        process.terminate()
        process.stderr.read()
    out = capsys.readouterr().out
    assert "the server answers with HTTP 200; it may ask for a token later" in out
    assert "FAILED  protected resource metadata: the server has none" in out


def test_the_groups_help(capsys: Capture) -> None:
    assert main(["doctor", "--help"]) == 0
    assert "auth" in capsys.readouterr().out
    assert login_module.REDIRECT_URI.startswith("http://localhost:")
