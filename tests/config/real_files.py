"""Configurations in the shapes that the clients of their names use."""

from __future__ import annotations

from typing import Final

ENVIRONMENT: Final = {"API_KEY": "key-from-environment", "TOKEN": "token-from-environment", "HOME_DIR": "/home/ada"}

FILES: Final[dict[str, str]] = {
    "claude_desktop.json": '{"mcpServers": {"files": {"command": "npx", "args": ["-y", "server-files", "/tmp"]}}}',
    "claude_desktop_env.json": '{"mcpServers": {"s": {"command": "uvx", "args": ["x"], "env": {"K": "v-value"}}}}',
    "claude_code_http.json": """{"mcpServers": {"api": {"type": "http", "url": "${BASE:-https://api.example}/mcp",
        "headers": {"Authorization": "Bearer ${API_KEY}"}, "timeout": 600000}}}""",
    "claude_code_sse.json": """{"mcpServers": {"a": {"type": "sse", "url": "https://a.example/sse",
        "headersHelper": "/bin/h", "alwaysLoad": true}}}""",
    "claude_code_ws.json": '{"mcpServers": {"e": {"type": "ws", "url": "wss://e.example/ws", "headers": {"A": "b"}}}}',
    "claude_code_plugin.json": '{"db": {"command": "node", "args": ["s.js"], "cwd": "."}}',
    "cursor_stdio.json": """{"mcpServers": {"s": {"type": "stdio", "command": "python", "args":
        ["${workspaceFolder}/tools/s.py"], "env": {"API_KEY": "${env:API_KEY}"}}}}""",
    "cursor_remote.json": '{"mcpServers": {"r": {"url": "http://localhost:3000/m", "headers": {"K": "${TOKEN}"}}}}',
    "vscode_inputs.json": """{
        // the key is asked for
        "inputs": [{"type": "promptString", "id": "key", "description": "Key", "password": true},],
        "servers": {"p": {"type": "stdio", "command": "npx", "args": ["-y", "p"], "env": {"KEY": "${input:key}"}}},
    }""",
    "vscode_remote.json": """{"servers": {"gh": {"type": "http", "url": "https://gh.example/mcp"}, /* local */
        "dev": {"command": "node", "args": ["b.js"], "dev": {"watch": "src/**", "debug": {"type": "node"}}}}}""",
    "vscode_sandbox.json": """{"servers": {"s": {"type": "stdio", "command": "npx", "args": ["-y", "s"],
        "envFile": "${workspaceFolder}${/}.env", "sandboxEnabled": true, "sandbox": {"network": {"allowedDomains":
        ["*.example.com"]}}}, "n": {"command": "n", "args": ["--name", "${workspaceFolderBasename}"]}}}""",
    "vscode_unix.json": """{"servers": {"u": {"type": "http", "url": "unix:///run/mcp.sock#/mcp"},
        "v": {"url": "unix:///tmp/v.sock#/mcp/sub"}, "w": {"type": "http", "url": "unix:///run/w.sock"}}}""",
    "vscode_settings.json": '{"editor.fontSize": 1, "mcp": {"inputs": [], "servers": {"t": {"command": "uvx"}}}}',
    "windsurf.json": '{"mcpServers": {"f": {"serverUrl": "https://f.example", "headers": {"K": "${env:API_KEY}"}}}}',
    "windsurf_tools.json": '{"mcpServers": {"g": {"command": "npx", "disabled": false, "disabledTools": ["x"]}}}',
    "zed.json": """{"context_servers": {"l": {"command": "c", "args": ["a"], "env": {}},
        "r": {"url": "https://r.example/mcp", "headers": {"Authorization": "Bearer abcdef"}}}}""",
    "zed_old.json": """{"context_servers": {"l": {"source": "custom", "enabled": true,
        "command": {"path": "c", "args": ["a"], "env": {}}, "settings": {}}}}""",
    "gemini.json": """{"theme": "x", "mcpServers": {"p": {"command": "python", "args": ["-m", "s"], "cwd": "./s",
        "env": {"K": "${API_KEY}"}, "timeout": 15000, "trust": false, "includeTools": ["a"], "excludeTools": []}}}""",
    "gemini_variables.json": """{"mcp": {"allowed": ["p"]}, "mcpServers": {"p": {"command": "docker",
        "args": ["run", "-i", "-e", "KEY", "-v", "${HOME_DIR}:/workspace", "image:latest"],
        "env": {"KEY": "$API_KEY", "PRICE": "$FIVE"}}, "g": {"httpUrl": "https://g.example/mcp",
        "authProviderType": "google_credentials", "oauth": {"scopes": ["email"]}}}}""",
    "gemini_http.json": '{"mcpServers": {"h": {"httpUrl": "http://localhost:3000/mcp", "timeout": 5000}}}',
    "cline.json": """{"mcpServers": {"l": {"command": "node", "args": ["/s.js"], "env": {"K": "value-of-k"},
        "alwaysAllow": ["t"], "autoApprove": [], "disabled": false, "timeout": 60}}}""",
    "cline_http.json": '{"mcpServers": {"r": {"url": "https://r.example", "type": "streamableHttp", "timeout": 1800}}}',
    "roo.json": """{"mcpServers": {"r": {"type": "streamable-http", "url": "https://r.example/m", "headers": {},
        "alwaysAllow": [], "disabled": true, "watchPaths": ["x"]}}}""",
    "kilo.json": '{"mcpServers": {"k": {"command": "node", "args": ["k"], "alwaysAllow": ["a"], "disabled": false}}}',
    "librechat.json": """{"mcpServers": {"x": {"type": "streamable-http", "url": "https://x.example/api/",
        "timeout": 60000, "initTimeout": 10000, "serverInstructions": true, "iconPath": "/i.svg",
        "headers": {"X-Key": "${API_KEY}"}, "customUserVars": {"K": {"title": "t"}}, "requiresOAuth": false}}}""",
    "continue.json": """{"mcpServers": [{"name": "s", "type": "sse", "url": "https://s.example/sse",
        "connectionTimeout": 8000, "requestOptions": {"headers": {"A": "bcde"}}}]}""",
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
        enabled = true
        required = true
        supports_parallel_tool_calls = true
        [mcp_servers.remote.tools.search]
        approval_mode = "approve"
        [mcp_servers.passing]
        command = "npx"
        env_vars = ["API_KEY", { name = "TOKEN", source = "local" }, "NOT_SET"]
        startup_timeout_ms = 30000""",
    "opencode.json": """{"$schema": "https://opencode.ai/config.json", "mcp": {"l": {"type": "local",
        "command": ["npx", "-y", "x"], "environment": {"A": "bcde"}, "enabled": true},
        "r": {"type": "remote", "url": "https://r.example/mcp", "enabled": false}}}""",
    "opencode_references.json": """{"mcp": {"c": {"type": "remote", "url": "https://c.example/mcp", "enabled": true,
        "headers": {"KEY": "{env:API_KEY}", "Authorization": "Bearer {env:TOKEN}"}, "timeout": 5000, "oauth": {}}}}""",
    "opencode_2.json": """{"$schema": "https://opencode.ai/config.json", "mcp": {"servers": {"e": {"type": "local",
        "command": ["npx", "-y", "e"], "cwd": ".", "environment": {"LOG": "debug"}, "disabled": true}}}}""",
    "copilot_cli.json": """{"mcpServers": {"l": {"type": "local", "command": "uvx", "args": ["l"], "tools": ["*"],
        "env": {"KEY": "${API_KEY}"}}, "r": {"type": "http", "url": "https://r.example/mcp", "tools": ["*"],
        "headers": {"Authorization": "Bearer ${TOKEN}"}}}}""",
    "fastmcp.json": """{"mcpServers": {"w": {"transport": "http", "url": "https://w.example/mcp",
        "auth": "a-token-of-ours"}, "l": {"transport": "stdio", "command": "python", "args": ["s.py"],
        "description": "d", "icon": "i"}}}""",
    "oauth.json": """{"mcpServers": {"a": {"url": "https://a.example/mcp", "auth": {"CLIENT_ID": "${env:API_KEY}"}},
        "b": {"url": "https://b.example/mcp", "auth": "oauth"}}}""",
    "cherry.json": '{"mcpServers": {"c": {"isActive": false, "command": "uvx", "args": ["c"], "registryUrl": "x"}}}',
    "mcpx.json": '{"mcpServers": {"t": {"command": "uvx", "args": ["t"], "env": {}, "icon": "t"}}}',
    "ours.json": """{"trioxport": 1, "mcpServers": {"all": {"url": "https://a.example/mcp", "timeout": "30s",
        "auth": {"type": "api-key", "header": "X-Key", "key": "${API_KEY}"}, "options": {"maxConcurrency": 4},
        "layers": ["Tracing", "Metrics", {"RateLimit": {"send": {"count": 9}}}, {"layer": "Retry", "attempts": 2},
            {"CircuitBreaker": {"failureRate": {"share": 0.5}}},
            {"Signing": {"keys": {"k": "0123456789abcdef0123456789abcdef"}}}],
        "reconnect": {"attempts": 3, "backoff": {"base": 1}}, "limits": {"maxMessageSize": 1000},
        "connectTimeout": 5, "closeTimeout": "2s"}, "tcp": {"url": "tcp://127.0.0.1:9"}}}""",
    "ours_grpc.json": """{"mcpServers": {"plain": {"url": "grpc://127.0.0.1:50051"}, "named": {"url":
        "grpc://127.0.0.1:50051/mcp.MCPService/Stream"}, "mesh": {"type": "grpc",
        "url": "grpcs://mcp.example", "headers": {"X-Team": "blue"}, "tls": {"ca": "ca.pem"},
        "auth": {"type": "bearer", "token": "${TOKEN}"},
        "options": {"method": "mcp.MCPService/Call", "deadline": 5, "gzip": true, "maxConcurrency": 9}}}}""",
    "ours.toml": """trioxport = 1
        [mcpServers.u]
        url = "unix:///run/mcp.sock"
        reconnect = true
        layers = [{ Timeout = { seconds = 5 } }]""",
}
