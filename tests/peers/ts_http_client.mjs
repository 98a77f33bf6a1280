// The official TypeScript SDK's client: `ts_http_client.mjs URL MODE [TOKEN [SERVER]]` uses the server of
// sdk_programs.py and prints what it sees. Modes: `first` is SDK 1; `legacy`, `auto` and `modern` are SDK 2, by how it
// finds the era. SERVER is `modern` if a server of that era is behind what stands at URL, and `replicas` if several
// are, each of which knows its own requests alone: then it neither subscribes nor asks what was cancelled.
import * as second from "@modelcontextprotocol/client";
import { Client as Client1 } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as Transport1 } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ResourceUpdatedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";

const [url, mode, token, server] = process.argv.slice(2);
const authorized = token ? { authorization: `Bearer ${token}` } : {};
const options = { requestInit: { headers: authorized } };
const name = { name: "ts", version: "1" };
const capabilities = { elicitation: { form: {} }, sampling: {} };
const negotiation = { legacy: "legacy", auto: "auto", modern: { pin: "2026-07-28" } };
const answer = async () => ({ action: "accept", content: { colour: "blue" } });
const sample = async () => ({ role: "assistant", model: "none", content: { type: "text", text: "It" } });
let heard;
const updated = new Promise((resolve) => (heard = ({ params }) => resolve(params.uri)));

let client, transport;
if (mode === "first") {
  client = new Client1(name, { capabilities });
  transport = new Transport1(new URL(url), options);
  client.setRequestHandler(ElicitRequestSchema, answer);
  client.setRequestHandler(CreateMessageRequestSchema, sample);
  client.setNotificationHandler(ResourceUpdatedNotificationSchema, heard);
} else {
  client = new second.Client(name, { capabilities, versionNegotiation: { mode: negotiation[mode] } });
  transport = new second.StreamableHTTPClientTransport(new URL(url), options);
  client.setRequestHandler("elicitation/create", answer);
  client.setRequestHandler("sampling/createMessage", sample);
  client.setNotificationHandler("notifications/resources/updated", heard);
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

async function subscribed() {
  const uri = "note://todo";
  if (!client.getServerCapabilities().resources?.subscribe) return null;
  await (modern ? client.listen({ resourceSubscriptions: [uri] }) : client.subscribeResource({ uri }));
  await call("edit", { name: "journal", text: "day two" });
  await call("edit", { name: "todo", text: "water plants" });
  return updated;
}

await client.connect(transport);
const modern = mode === "auto" || mode === "modern";
const [asks, samples] = modern || server === "modern" ? ["deploy", "muse"] : ["ask", "sample"];
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
  greeting: (await client.getPrompt({ name: "greet", arguments: { name: "Ada" } })).messages[0].content.text,
  asked: await text(asks),
  sampled: await text(samples),
  cancelled: server === "replicas" ? null : await cancelled(),
  updated: server === "replicas" ? null : await subscribed(),
};
if (seen.session) {
  const headers = { "mcp-session-id": transport.sessionId, accept: "text/event-stream", ...authorized };
  await transport.terminateSession();
  seen.after = (await fetch(url, { headers })).status;
}
await client.close();
console.log(JSON.stringify(seen));
