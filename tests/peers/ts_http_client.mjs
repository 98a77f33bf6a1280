// The official TypeScript SDK's client: `ts_http_client.mjs URL MODE [TOKEN [QUESTION]]` uses the server of
// sdk_programs.py and prints what it sees. Modes: `first` is SDK 1; `legacy`, `auto` and `modern` are SDK 2, by how it
// finds the era. QUESTION is the tool that asks.
import * as second from "@modelcontextprotocol/client";
import { Client as Client1 } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as Transport1 } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const [url, mode, token, question] = process.argv.slice(2);
const authorized = token ? { authorization: `Bearer ${token}` } : {};
const options = { requestInit: { headers: authorized } };
const name = { name: "ts", version: "1" };
const capabilities = { elicitation: { form: {} } };
const negotiation = { legacy: "legacy", auto: "auto", modern: { pin: "2026-07-28" } };
const answer = async () => ({ action: "accept", content: { colour: "blue" } });

let client, transport;
if (mode === "first") {
  client = new Client1(name, { capabilities });
  transport = new Transport1(new URL(url), options);
  client.setRequestHandler(ElicitRequestSchema, answer);
} else {
  client = new second.Client(name, { capabilities, versionNegotiation: { mode: negotiation[mode] } });
  transport = new second.StreamableHTTPClientTransport(new URL(url), options);
  client.setRequestHandler("elicitation/create", answer);
}
const call = (tool, args = {}, options) => {
  const params = { name: tool, arguments: args };
  return mode === "first" ? client.callTool(params, undefined, options) : client.callTool(params, options);
};
const text = async (...about) => (await call(...about)).content[0].text;

async function cancelled() {
  const leaving = new AbortController();
  const waiting = call("wait", { name: "one" }, { signal: leaving.signal, onprogress: () => leaving.abort() });
  const failed = await waiting.then(() => false, () => true);
  let found = [];
  while (!found.length) found = (await call("cancellations")).structuredContent.result;
  return failed && found;
}

await client.connect(transport);
const modern = mode === "auto" || mode === "modern";
const progress = [];
const seen = {
  version: modern ? client.getNegotiatedProtocolVersion() : transport.protocolVersion,
  session: transport.sessionId !== undefined,
  tools: (await client.listTools()).tools.map((tool) => tool.name),
  counted: await text("count", { upto: 3 }, { onprogress: (step) => progress.push(step.progress) }),
  progress,
  sums: await Promise.all(Array.from({ length: 20 }, (_, number) => text("add", { a: number, b: 1 }))),
  long: (await text("repeat", { text: "ü", times: 300_000 })).length,
  failed: (await call("fail")).isError,
  note: (await client.readResource({ uri: "note://todo" })).contents[0].text,
  asked: await text(question ?? (modern ? "deploy" : "ask")),
  cancelled: await cancelled(),
};
if (seen.session) {
  const headers = { "mcp-session-id": transport.sessionId, accept: "text/event-stream", ...authorized };
  await transport.terminateSession();
  seen.after = (await fetch(url, { headers })).status;
}
await client.close();
console.log(JSON.stringify(seen));
