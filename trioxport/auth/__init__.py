"""Who this side is, and whom it trusts: what every transport with a place for credentials takes.

A transport whose wire has headers asks :class:`Credentials` for them; :class:`Bearer` and :class:`ApiKey` are such.
Over HTTP any ``httpx.Auth`` will do too. Trust and client certificates are :class:`TLSOptions`.
"""

from trioxport.auth.credentials import ApiKey, AuthFlow, Credentials
from trioxport.auth.secret import Secret
from trioxport.auth.tls import TLSOptions
from trioxport.auth.tokens import Bearer, Token, TokenProvider, VerifiedToken

__all__ = [
    "ApiKey",
    "AuthFlow",
    "Bearer",
    "Credentials",
    "Secret",
    "TLSOptions",
    "Token",
    "TokenProvider",
    "VerifiedToken",
]
