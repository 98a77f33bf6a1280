"""Configurations in the documented shapes of real clients. Each names the document that its shape is from."""

from __future__ import annotations

from typing import Final

ENVIRONMENT: Final = {"API_KEY": "key-from-environment", "TOKEN": "token-from-environment", "HOME_DIR": "/home/ada"}

FILES: Final[dict[str, str]] = {
    # modelcontextprotocol.io, Connect to local MCP servers
    "claude_desktop.json": '{"mcpServers": {"files": {"command": "npx", "args": ["-y", "server-files", "/tmp"]}}}',
    # modelcontextprotocol.io, Connect to local MCP servers: keys in env
    "claude_desktop_env.json": '{"mcpServers": {"s": {"command": "uvx", "args": ["x"], "env": {"K": "v-value"}}}}',
    # code.claude.com/docs/en/mcp: HTTP with expansion
    "claude_code_http.json": """{"mcpServers": {"api": {"type": "http", "url": "${BASE:-https://api.example}/mcp",
        "headers": {"Authorization": "Bearer ${API_KEY}"}, "timeout": 600000}}}""",
    # code.claude.com/docs/en/mcp: SSE and headersHelper
    "claude_code_sse.json": """{"mcpServers": {"a": {"type": "sse", "url": "https://a.example/sse",
        "headersHelper": "/bin/h", "alwaysLoad": true}}}""",
    # code.claude.com/docs/en/mcp: WebSocket
    "claude_code_ws.json": '{"mcpServers": {"e": {"type": "ws", "url": "wss://e.example/ws", "headers": {"A": "b"}}}}',
    # code.claude.com/docs/en/plugins-reference: servers without a wrapper
    "claude_code_plugin.json": '{"db": {"command": "node", "args": ["s.js"], "cwd": "."}}',
    # cursor.com/docs/context/mcp: stdio with envFile left out, interpolation
    "cursor_stdio.json": """{"mcpServers": {"s": {"type": "stdio", "command": "python", "args":
        ["${workspaceFolder}/tools/s.py"], "env": {"API_KEY": "${env:API_KEY}"}}}}""",
    # cursor.com/docs/context/mcp: remote with static OAuth credentials elsewhere
    "cursor_remote.json": '{"mcpServers": {"r": {"url": "http://localhost:3000/m", "headers": {"K": "${TOKEN}"}}}}',
    # code.visualstudio.com/docs/copilot/reference/mcp-configuration: inputs, comments
    "vscode_inputs.json": """{
        // the key is asked for
        "inputs": [{"type": "promptString", "id": "key", "description": "Key", "password": true},],
        "servers": {"p": {"type": "stdio", "command": "npx", "args": ["-y", "p"], "env": {"KEY": "${input:key}"}}},
    }""",
    # code.visualstudio.com/docs/copilot/reference/mcp-configuration: remote and dev mode
    "vscode_remote.json": """{"servers": {"gh": {"type": "http", "url": "https://gh.example/mcp"}, /* local */
        "dev": {"command": "node", "args": ["b.js"], "dev": {"watch": "src/**", "debug": {"type": "node"}}}}}""",
    # code.visualstudio.com/docs/copilot/chat/mcp-servers: the section of settings.json
    "vscode_settings.json": '{"editor.fontSize": 1, "mcp": {"inputs": [], "servers": {"t": {"command": "uvx"}}}}',
    # docs.windsurf.com/windsurf/cascade/mcp: serverUrl
    "windsurf.json": '{"mcpServers": {"f": {"serverUrl": "https://f.example", "headers": {"K": "${env:API_KEY}"}}}}',
    # docs.windsurf.com/windsurf/cascade/mcp: disabledTools
    "windsurf_tools.json": '{"mcpServers": {"g": {"command": "npx", "disabled": false, "disabledTools": ["x"]}}}',
    # zed.dev/docs/ai/mcp
    "zed.json": """{"context_servers": {"l": {"command": "c", "args": ["a"], "env": {}},
        "r": {"url": "https://r.example/mcp", "headers": {"Authorization": "Bearer abcdef"}}}}""",
    # zed.dev, formerly: the command as an object
    "zed_old.json": """{"context_servers": {"l": {"source": "custom", "enabled": true,
        "command": {"path": "c", "args": ["a"], "env": {}}, "settings": {}}}}""",
    # google-gemini/gemini-cli docs/tools/mcp-server.md: stdio
    "gemini.json": """{"theme": "x", "mcpServers": {"p": {"command": "python", "args": ["-m", "s"], "cwd": "./s",
        "env": {"K": "${API_KEY}"}, "timeout": 15000, "trust": false, "includeTools": ["a"], "excludeTools": []}}}""",
    # google-gemini/gemini-cli docs/tools/mcp-server.md: httpUrl
    "gemini_http.json": '{"mcpServers": {"h": {"httpUrl": "http://localhost:3000/mcp", "timeout": 5000}}}',
    # docs.cline.bot/mcp/configuring-mcp-servers: seconds
    "cline.json": """{"mcpServers": {"l": {"command": "node", "args": ["/s.js"], "env": {"K": "value-of-k"},
        "alwaysAllow": ["t"], "autoApprove": [], "disabled": false, "timeout": 60}}}""",
    # docs.cline.bot/mcp/configuring-mcp-servers: streamableHttp
    "cline_http.json": '{"mcpServers": {"r": {"url": "https://r.example", "type": "streamableHttp", "timeout": 1800}}}',
    # docs.roocode.com/features/mcp/using-mcp-in-roo
    "roo.json": """{"mcpServers": {"r": {"type": "streamable-http", "url": "https://r.example/m", "headers": {},
        "alwaysAllow": [], "disabled": true, "watchPaths": ["x"]}}}""",
    # kilo.ai/docs/features/mcp/using-mcp-in-cli
    "kilo.json": '{"mcpServers": {"k": {"command": "node", "args": ["k"], "alwaysAllow": ["a"], "disabled": false}}}',
    # librechat.ai/docs/configuration/librechat_yaml/object_structure/mcp_servers, as JSON
    "librechat.json": """{"mcpServers": {"x": {"type": "streamable-http", "url": "https://x.example/api/",
        "timeout": 60000, "initTimeout": 10000, "serverInstructions": true, "iconPath": "/i.svg",
        "headers": {"X-Key": "${API_KEY}"}, "customUserVars": {"K": {"title": "t"}}, "requiresOAuth": false}}}""",
    # docs.continue.dev/reference: a list, as JSON
    "continue.json": """{"mcpServers": [{"name": "s", "type": "sse", "url": "https://s.example/sse",
        "connectionTimeout": 8000, "requestOptions": {"headers": {"A": "bcde"}}}]}""",
    # developers.openai.com/codex/mcp
    "codex.toml": """model = "m"
        [mcp_servers.local]
        command = "npx"
        args = ["-y", "x"]
        startup_timeout_sec = 20
        tool_timeout_sec = 45
        enabled_tools = ["a"]
        env_vars = ["LANG"]
        [mcp_servers.remote]
        url = "https://r.example/mcp"
        bearer_token_env_var = "TOKEN"
        http_headers = { "X-Region" = "eu-1" }
        env_http_headers = { "X-Key" = "API_KEY" }
        enabled = true""",
    # opencode.ai/docs/mcp-servers
    "opencode.json": """{"$schema": "https://opencode.ai/config.json", "mcp": {"l": {"type": "local",
        "command": ["npx", "-y", "x"], "environment": {"A": "bcde"}, "enabled": true},
        "r": {"type": "remote", "url": "https://r.example/mcp", "enabled": false}}}""",
    # gofastmcp.com/clients/client: transport and auth
    "fastmcp.json": """{"mcpServers": {"w": {"transport": "http", "url": "https://w.example/mcp",
        "auth": "a-token-of-ours"}, "l": {"transport": "stdio", "command": "python", "args": ["s.py"],
        "description": "d", "icon": "i"}}}""",
    # cursor.com/docs/context/mcp and gofastmcp.com/clients/client: OAuth
    "oauth.json": """{"mcpServers": {"a": {"url": "https://a.example/mcp", "auth": {"CLIENT_ID": "${env:API_KEY}"}},
        "b": {"url": "https://b.example/mcp", "auth": "oauth"}}}""",
    # docs.cherry-ai.com, MCP settings
    "cherry.json": '{"mcpServers": {"c": {"isActive": false, "command": "uvx", "args": ["c"], "registryUrl": "x"}}}',
    # docs.lunar.dev/mcpx/mcp.json
    "mcpx.json": '{"mcpServers": {"t": {"command": "uvx", "args": ["t"], "env": {}, "icon": "t"}}}',
    # docs/configuration.md: everything of ours
    "ours.json": """{"trioxport": 1, "mcpServers": {"all": {"url": "https://a.example/mcp", "timeout": "30s",
        "auth": {"type": "api-key", "header": "X-Key", "key": "${API_KEY}"}, "options": {"maxConcurrency": 4},
        "layers": ["Tracing", "Metrics", {"RateLimit": {"send": {"count": 9}}}, {"layer": "Retry", "attempts": 2},
            {"CircuitBreaker": {"failureRate": {"share": 0.5}}},
            {"Signing": {"keys": {"k": "0123456789abcdef0123456789abcdef"}}}],
        "reconnect": {"attempts": 3, "backoff": {"base": 1}}, "limits": {"maxMessageSize": 1000},
        "connectTimeout": 5, "closeTimeout": "2s"}, "tcp": {"url": "tcp://127.0.0.1:9"}}}""",
    # docs/configuration.md: the same in TOML
    "ours.toml": """trioxport = 1
        [mcpServers.u]
        url = "unix:///run/mcp.sock"
        reconnect = true
        layers = [{ Timeout = { seconds = 5 } }]""",
}
