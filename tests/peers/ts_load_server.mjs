// The TypeScript SDK's server under load: `ts_load_server.mjs modern|legacy` prints its address.
//
// modern: createMcpHandler; legacy: a transport with a session for each client. Both as in the SDK's own documentation.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

import { NodeStreamableHTTPServerTransport, toNodeHandler } from "@modelcontextprotocol/node";
import { createMcpHandler, McpServer } from "@modelcontextprotocol/server";
import { z } from "zod";

const input = z.object({ size: z.number(), steps: z.number() });
const sessions = new Map();

function make() {
  const server = new McpServer({ name: "load", version: "2" });
  server.registerTool("answer", { inputSchema: input }, async ({ size, steps }, context) => {
    const progressToken = context.mcpReq._meta?.progressToken;
    for (let progress = 1; progress <= steps; progress++)
      await context.mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress } });
    return { content: [{ type: "text", text: "x".repeat(size) }] };
  });
  return server;
}

async function inSession(request, response) {
  let transport = sessions.get(request.headers["mcp-session-id"]);
  if (!transport) {
    transport = new NodeStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => sessions.set(id, transport),
    });
    await make().connect(transport);
  }
  await transport.handleRequest(request, response);
}

const server = createServer(process.argv[2] === "modern" ? toNodeHandler(createMcpHandler(make)) : inSession);
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/mcp`));
process.stdin.on("end", () => process.exit()).resume();
