"""Credentials and TLS, for every transport that has a place for them.

:class:`Credentials` give the headers of a request: :class:`Bearer` and :class:`ApiKey` are such. Over HTTP any
``httpx.Auth`` can be used too, and :mod:`trioxport.auth.oauth` holds OAuth. :class:`TLSOptions` hold the trusted and
the own certificates.
"""

from trioxport.auth.credentials import ApiKey, AuthFlow, Credentials, RequestAuthorization, RequestAuthorizer
from trioxport.auth.secret import Secret
from trioxport.auth.tls import TLSOptions
from trioxport.auth.token_file import TokenFile
from trioxport.auth.tokens import Bearer, Token, TokenProvider
from trioxport.auth.verified import InvalidToken, VerificationUnavailable, VerifiedToken, Verify

__all__ = [
    "ApiKey",
    "AuthFlow",
    "Bearer",
    "Credentials",
    "InvalidToken",
    "RequestAuthorization",
    "RequestAuthorizer",
    "Secret",
    "TLSOptions",
    "Token",
    "TokenFile",
    "TokenProvider",
    "VerificationUnavailable",
    "VerifiedToken",
    "Verify",
]
