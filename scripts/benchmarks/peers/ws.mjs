// A broadcast with `ws`: an event comes by POST and is sent to each client in turn. Nothing is stored.

import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const frame = Buffer.from(`{"type":"event","payload":${Buffer.concat(chunks)}}`);
    for (const client of subscribers) client.send(frame, { binary: false });
    response.writeHead(201).end();
  });
});
server.keepAliveTimeout = 0;

const subscribers = new Set();
new WebSocketServer({ server, perMessageDeflate: false }).on("connection", (client) => {
  client.once("message", () => {
    client.send('{"type":"subscribed","payload":{"channel":"events"}}');
    subscribers.add(client);
  });
  client.on("close", () => subscribers.delete(client));
});

server.listen(Number(process.argv[2]), "127.0.0.1", 1024);
