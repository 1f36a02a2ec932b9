"""A plain `websockets` broadcast: nothing is stored.

Events come as lines down a Unix socket, the cheapest way in that there is. They are neither parsed nor checked.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from websockets.asyncio.server import ServerConnection, broadcast, serve

_subscribers: set[ServerConnection] = set()


async def subscriber(connection: ServerConnection) -> None:
    """Serve one WebSocket."""
    await connection.recv()
    await connection.send('{"type":"subscribed","payload":{"channel":"events"}}')
    _subscribers.add(connection)
    try:
        await connection.wait_closed()
    finally:
        _subscribers.discard(connection)


async def writer(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Broadcast each line of one writer."""
    async for line in reader:
        broadcast(_subscribers, '{"type":"event","payload":' + line[:-1].decode() + "}")


async def main(port: int, folder: Path) -> None:
    """Serve until killed."""
    await asyncio.start_unix_server(writer, folder / "events.sock")
    async with serve(subscriber, "127.0.0.1", port, ping_interval=None, backlog=1024) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
