// A broadcast with Socket.IO: an event comes by POST and is emitted to all. Nothing is stored.

import { createServer } from "node:http";
import { Server } from "socket.io";

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    io.emit("event", JSON.parse(Buffer.concat(chunks)));
    response.writeHead(201).end();
  });
});
server.keepAliveTimeout = 0;

// Its pings are text, which a client that only reads events does not answer.
const io = new Server({ transports: ["websocket"], pingInterval: 3_600_000, serveClient: false });
io.attach(server);
io.on("connection", (socket) => socket.emit("subscribed", { channel: "events" }));

server.listen(Number(process.argv[2]), "127.0.0.1", 1024);
