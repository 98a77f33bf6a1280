// A peer over WebSocket made with the package ws: `node ws_peer.mjs server`, or `node ws_peer.mjs client URL`.
// The server answers requests with their params, and does what the methods "close" and "terminate" say.
import { WebSocket, WebSocketServer } from "ws";

const [mode, url] = process.argv.slice(2);

function answer(socket, data) {
  const { id, method, params } = JSON.parse(data.toString());
  if (method === "close") socket.close(params.code, params.reason);
  else if (method === "terminate") socket.terminate();
  else socket.send(JSON.stringify({ jsonrpc: "2.0", id, result: params }));
}

if (mode === "server") {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  server.on("listening", () => console.log(server.address().port));
  server.on("connection", (socket) => {
    socket.on("message", (data) => answer(socket, data));
    socket.on("error", () => {});
    socket.ping("are you there?");
    socket.on("pong", (data) => socket.send(JSON.stringify({ jsonrpc: "2.0", method: "pong", params: [`${data}`] })));
  });
} else {
  const socket = new WebSocket(url, ["mcp"]);
  let left = 100;
  socket.on("open", () => {
    for (let id = 0; id < left; id++) {
      const text = id ? "ö".repeat(id * id) : "x".repeat(500_000);
      socket.send(JSON.stringify({ jsonrpc: "2.0", id, method: "echo", params: { id, text } }));
    }
  });
  socket.on("message", (data) => {
    const { id, result } = JSON.parse(data.toString());
    if (result.id !== id) throw new Error(data.toString());
    if (--left === 0) socket.close(1000, "done");
  });
  socket.on("close", (code) => console.log(`${socket.protocol} ${left} ${code}`));
}
