"""Verification of access tokens on a server (RFC 6750, 7519, 7662, 9068, 9449). Needs the extra ``oauth``.

``HttpServer(url, verify=JWTVerifier("https://login.example.com", "https://mcp.example.com/mcp"))``
"""

from trioxport.auth.verification.introspection import IntrospectionVerifier
from trioxport.auth.verification.jwt import JWTVerifier
from trioxport.auth.verification.proofs import DPoP

__all__ = ["DPoP", "IntrospectionVerifier", "JWTVerifier"]
