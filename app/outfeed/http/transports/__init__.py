"""The feed on the wire: WebSocket, server-sent events, long poll and poll."""
