"""The transports of the feed: WebSocket, server-sent events and polls."""
