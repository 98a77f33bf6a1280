"""Names of secrets: of options and query members, of headers, and of the members of messages.

Targets and headers are hidden strictly: a name that may be that of a secret is enough. The names in messages are more
often words of a tool, such as ``key`` or ``session``, so fewer of them count.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_SECRET_PART: Final = (
    r"(?i)pass(?:word|phrase|wd)?|pwd|secret|token|(?:api|access|private)[-_]?key|credential|auth|bearer|signature"
)
"""Parts of a name that make it that of a secret."""
_SECRET_WHOLE_WORDS: Final = frozenset(
    (
        *("assertion", "code", "cookie", "hmac", "jsessionid", "jwt", "key", "nonce", "otp", "pin", "session"),
        *("sessionid", "sid", "sig", "state", "ticket"),
    )
)
"""Words of a name that do so as whole words only: ``authCode``, ``session_id``, but not ``encode``."""
_SECRET_HEADER_WORDS: Final = frozenset(
    (
        *("apikey", "assertion", "authorization", "cookie", "credential", "credentials", "jwt", "key", "password"),
        *("secret", "signature", "token"),
    )
)
_HARMLESS_HEADERS: Final = frozenset(("idempotency-key", "sec-websocket-key"))
_WORD: Final = r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+"
_SECRET_MEMBER: Final = (
    r"(?:^|_)(?:pass(?:word|phrase|wd|code)?|pwd|secrets?|token|credentials?|auth(?:orization)?|bearer|cookies?|jwt|otp|pin"
    r"|signature|sig|(?:api|access|private|secret|signing|encryption)_?keys?)(?:$|_)"
)
_HUMP: Final = r"(?<=[a-z0-9])(?=[A-Z])|[^a-zA-Z0-9]+"
_HARMLESS_MEMBERS: Final = frozenset({"progressToken"})


def is_secret_name(name: str) -> bool:
    """Whether a query member, an option, a variable or a field of this name may hold a secret."""
    return bool(re.search(_SECRET_PART, name)) or not _SECRET_WHOLE_WORDS.isdisjoint(_words(name))


def is_secret_header(name: str) -> bool:
    """Whether a header of this name may hold a secret: ``Authorization``, ``Cookie``, ``X-Api-Key`` ..."""
    return name.lower() not in _HARMLESS_HEADERS and not _SECRET_HEADER_WORDS.isdisjoint(_words(name))


@lru_cache(maxsize=1024)
def is_secret_member(name: str) -> bool:
    """Whether a member of a message, of this name, may hold a secret: ``password``, ``apiKey``, ``X-Auth-Token`` ..."""
    return name not in _HARMLESS_MEMBERS and bool(re.search(_SECRET_MEMBER, re.sub(_HUMP, "_", name).lower()))


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(_WORD, name)]
