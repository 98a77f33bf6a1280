// A server made with the official TypeScript SDK, on the web: `ts_http_server.mjs MODE` prints its port.
//
//   modern      SDK 2, revision 2026-07-28 alone
//   both        SDK 2, and the legacy era without sessions
//   sessions    SDK 2, the legacy era with sessions
//   stateless   SDK 1, without sessions
//   sse         SDK 1, HTTP+SSE
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

import { NodeStreamableHTTPServerTransport, toNodeHandler } from "@modelcontextprotocol/node";
import { McpServer as McpServer1 } from "@modelcontextprotocol/sdk/server/mcp.js";
import { SSEServerTransport } from "@modelcontextprotocol/sdk/server/sse.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { createMcpHandler, fromJsonSchema, McpServer } from "@modelcontextprotocol/server";
import { z } from "zod";

const text = (value) => ({ content: [{ type: "text", text: String(value) }] });
const numbers = z.object({ a: z.number(), b: z.number() });
const where = {
  type: "object",
  properties: { region: { type: "string", "x-mcp-header": "Region" } },
  required: ["region"],
};

function second() {
  const server = new McpServer({ name: "ts", version: "2" });
  server.registerTool("add", { inputSchema: numbers }, async ({ a, b }) => text(a + b));
  server.registerTool("where", { inputSchema: fromJsonSchema(where) }, async ({ region }) => text(region));
  server.registerTool("work", { inputSchema: z.object({ steps: z.number() }) }, async ({ steps }, context) => {
    const progressToken = context.mcpReq._meta?.progressToken;
    for (let progress = 1; progress <= steps && progressToken !== undefined; progress++)
      await context.mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress } });
    return text("done");
  });
  return server;
}

function first() {
  const server = new McpServer1({ name: "ts", version: "1" });
  server.registerTool("add", { inputSchema: numbers.shape }, async ({ a, b }) => text(a + b));
  server.registerTool("work", { inputSchema: { steps: z.number() } }, async ({ steps }, extra) => {
    const progressToken = extra._meta?.progressToken;
    for (let progress = 1; progress <= steps && progressToken !== undefined; progress++)
      await extra.sendNotification({ method: "notifications/progress", params: { progressToken, progress } });
    return text("done");
  });
  return server;
}

const sessions = new Map();

async function inSession(request, response) {
  let transport = sessions.get(request.headers["mcp-session-id"]);
  if (!transport && request.headers["mcp-session-id"]) return response.writeHead(404).end();
  if (!transport) {
    transport = new NodeStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => sessions.set(id, transport),
    });
    await second().connect(transport);
  }
  await transport.handleRequest(request, response);
}

async function stateless(request, response) {
  if (request.method !== "POST") return response.writeHead(405).end();
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
  await first().connect(transport);
  await transport.handleRequest(request, response);
}

async function overSSE(request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  if (request.method === "GET") {
    const transport = new SSEServerTransport("/messages", response);
    sessions.set(transport.sessionId, transport);
    await first().connect(transport);
  } else if (pathname === "/messages") {
    await sessions.get(searchParams.get("sessionId")).handlePostMessage(request, response);
  } else {
    response.writeHead(404).end();
  }
}

const modes = {
  modern: () => toNodeHandler(createMcpHandler(second, { legacy: "reject" })),
  both: () => toNodeHandler(createMcpHandler(second)),
  sessions: () => async (request, response) => {
    if (request.url === "/forget") {
      sessions.clear();
      return response.end();
    }
    await inSession(request, response);
  },
  stateless: () => stateless,
  sse: () => overSSE,
};
const server = createServer(modes[process.argv[2]]());
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
