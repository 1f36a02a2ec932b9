"""MCP: the log as tools and resources of the Model Context Protocol.

The protocol has two eras, and `POST /mcp` serves both without state. A message of the current revision (2026-07-28)
names its revision in its `_meta`. Every other message is of a revision before, whose handshake is answered without a
session, with the revision that the client names if it is in `headers.HANDSHAKES`.

- `protocol.py` reads a message and checks its shape and headers. No Flask.
- `endpoint.py` is the HTTP transport, and `stdio.py` the command that forwards stdin and stdout to it.
- `methods.py` answers each method. `tools.py`, `resources.py` and `events.py` have the parts.
- A tool asks an operation of the HTTP API (`operations.py`), with the same arguments, rights, limits and errors.

The shapes of the protocol are those of `mcp-types`. `stdio.py` needs neither it nor a database.
"""
