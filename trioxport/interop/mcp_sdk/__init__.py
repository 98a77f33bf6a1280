"""Every transport of trioxport under the official Python SDK (the extra ``mcp``), on Trio, as client and as server::

async with Client(sdk_transport("wss://example.com/mcp", layers=[Retry()])) as client: ...

await serve_sdk(server, "tcp://127.0.0.1:8000")
"""

try:
    import mcp as mcp  # for one clear error here if it is missing
except ModuleNotFoundError as error:
    from trioxport._diagnostics.hints import install_hint
    from trioxport.errors import UsageError

    raise UsageError("the official Python SDK is not installed", hint=install_hint("mcp")) from error

from trioxport.interop.mcp_sdk._client import sdk_transport
from trioxport.interop.mcp_sdk._hosting import is_sdk_server
from trioxport.interop.mcp_sdk._server import sdk_application, serve_sdk
from trioxport.interop.mcp_sdk._tokens import SDKTokenVerifier, from_sdk_verifier

__all__ = [
    "SDKTokenVerifier",
    "from_sdk_verifier",
    "is_sdk_server",
    "sdk_application",
    "sdk_transport",
    "serve_sdk",
]
