"""Configuration files: the servers that desktop clients and editors name in JSON, and the same tables in TOML.

::

    servers = load_servers("mcp.json")
    async with open_transport(servers["files"]) as (tx, rx):
        ...
"""

from trioxport.config.loading import list_servers, load_servers
from trioxport.config.problems import ConfigError, Problem
from trioxport.config.schema import config_schema
from trioxport.config.server import ServerConfig, ServerConfigs

__all__ = ["ConfigError", "Problem", "ServerConfig", "ServerConfigs", "config_schema", "list_servers", "load_servers"]
