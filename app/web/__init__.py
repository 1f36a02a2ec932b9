"""HTTP and WebSocket. Flask turns requests into calls on the store and the feed; no rule of theirs lives here."""
