// The official TypeScript SDK's client, SDK 2, of revision 2026-07-28 alone: `ts_everything_client.mjs URL` uses
// server-everything, which is of the legacy era, through what stands at URL, and prints what it sees.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const asked = [];
const noted = (question, answer) => async ({ params }) => {
  asked.push(question(params));
  return answer;
};
const capabilities = { elicitation: { form: {} }, sampling: {}, roots: {} };
const versionNegotiation = { mode: { pin: "2026-07-28" } };
const client = new Client({ name: "ts", version: "2" }, { capabilities, versionNegotiation });
const sampled = { role: "assistant", model: "none", content: { type: "text", text: "It rains." } };
client.setRequestHandler("sampling/createMessage", noted((params) => params.messages[0].content.text, sampled));
client.setRequestHandler("elicitation/create", noted(({ mode }) => mode ?? "form", { action: "accept", content: { name: "Ada" } }));
client.setRequestHandler("roots/list", noted(() => "roots", { roots: [{ uri: "file:///here", name: "here" }] }));

const call = (name, args = {}, options) => client.callTool({ name, arguments: args }, options);
const text = async (...about) => (await call(...about)).content.map((each) => each.text).join("\n");
const long = "trigger-long-running-operation";

async function updated(uri) {
  const heard = new Promise((resolve) =>
    client.setNotificationHandler("notifications/resources/updated", ({ params }) => resolve(params.uri)),
  );
  const subscription = await client.listen({ resourceSubscriptions: [uri] });
  await call("toggle-subscriber-updates");
  const changed = await heard;
  await subscription.close();
  return changed;
}

async function cancelled() {
  const leaving = new AbortController();
  const options = { signal: leaving.signal, onprogress: () => leaving.abort() };
  return call(long, { duration: 60, steps: 600 }, options).then(() => false, () => true);
}

await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2])));
const uri = "demo://resource/dynamic/text/1";
const progress = [];
const seen = {
  version: client.getNegotiatedProtocolVersion(),
  tools: (await client.listTools()).tools.map((tool) => tool.name),
  echo: await text("echo", { message: "grüß dich" }),
  sums: (await Promise.all([1, 2, 3].map((a) => text("get-sum", { a, b: 1 })))).map((each) => /(\d+)\.$/.exec(each)[1]),
  listed: (await client.listResources()).resources.length > 0,
  read: (await client.readResource({ uri })).contents[0].uri,
  prompt: (await client.getPrompt({ name: "args-prompt", arguments: { city: "Oslo" } })).messages[0].content.text,
  completed: (await client.complete({
    ref: { type: "ref/prompt", name: "completable-prompt" },
    argument: { name: "department", value: "E" },
  })).completion.values,
  sampled: (await text("trigger-sampling-request", { prompt: "the weather" })).includes("It rains."),
  elicited: (await text("trigger-elicitation-request")).includes("Ada"),
  rooted: (await text("get-roots-list")).includes("file:///here"),
  worked: (await text(long, { duration: 0.2, steps: 2 }, { onprogress: (step) => progress.push(step.progress) })).length > 0,
  progress,
  cancelled: await cancelled(),
  updated: await updated(uri),
  after: await text("echo", { message: "after" }),
  asked,
};
await client.close();
console.log(JSON.stringify(seen));
