// Passes requests of HTTP/1.1 on to a server by HTTP/2 with prior knowledge: `http2_proxy.mjs URL` prints its own URL,
// and ends with its standard input.
// The conformance suite speaks HTTP/1.1 alone; behind this proxy its scenarios judge a server over HTTP/2.
import http from "node:http";
import http2 from "node:http2";

const target = new URL(process.argv[2]);
const session = http2.connect(target.origin);
const ofConnections = new Set(["connection", "keep-alive", "transfer-encoding", "host", "upgrade"]);

function withoutConnection(headers) {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !ofConnections.has(name) && name[0] !== ":"));
}

const server = http.createServer((request, response) => {
  const stream = session.request({
    ":method": request.method,
    ":path": request.url,
    ":authority": request.headers.host,
    ...withoutConnection(request.headers),
  });
  stream.on("response", (headers) => response.writeHead(headers[":status"], withoutConnection(headers)));
  stream.on("error", () => response.destroy());
  response.on("close", () => stream.close(http2.constants.NGHTTP2_CANCEL));
  request.pipe(stream);
  stream.pipe(response);
});
process.stdin.on("end", () => process.exit()).resume();
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}${target.pathname}`));
