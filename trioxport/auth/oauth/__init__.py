"""Authorization by OAuth, for clients: a complete implementation of MCP's specification, and of its extensions.

:class:`OAuth` is the ``auth`` of a target. The other names are its options: stores, grants, and ways to a person.
"""

from trioxport.auth.oauth.clients import OAuthClient
from trioxport.auth.oauth.device import DeviceAuthorization, DeviceCode
from trioxport.auth.oauth.file_store import FileStore
from trioxport.auth.oauth.grants import (
    AuthorizationCode,
    ClientCredentials,
    EnterpriseManaged,
    Grant,
    WorkloadIdentity,
)
from trioxport.auth.oauth.interaction import Browser, Consent, Interaction, OutOfBand, open_browser
from trioxport.auth.oauth.keychain import KeychainStore
from trioxport.auth.oauth.logins import Login
from trioxport.auth.oauth.network import NetworkPolicy
from trioxport.auth.oauth.provider import OAuth
from trioxport.auth.oauth.stores import CredentialStore, MemoryStore

__all__ = [
    "AuthorizationCode",
    "Browser",
    "ClientCredentials",
    "Consent",
    "CredentialStore",
    "DeviceAuthorization",
    "DeviceCode",
    "EnterpriseManaged",
    "FileStore",
    "Grant",
    "Interaction",
    "KeychainStore",
    "Login",
    "MemoryStore",
    "NetworkPolicy",
    "OAuth",
    "OAuthClient",
    "OutOfBand",
    "WorkloadIdentity",
    "open_browser",
]
