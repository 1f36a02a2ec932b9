"""The Python client: follow a server's feed and publish events.

Following continues over any disconnect. A published event arrives once.

    client = Client("http://127.0.0.1:8000", token="outfeed_…")
    for event in client.follow(types=["task.*"], cursor_file="bot.cursor"):
        print(event.seq, event.event_type, event.data)
"""

from outfeed.client.client import Client
from outfeed.client.feed import Feed
from outfeed.client.shapes import Cursor, FeedEvent, Gap, Receipt, Reset
from outfeed.errors import ConsumerSuperseded

__all__ = ["Client", "ConsumerSuperseded", "Cursor", "Feed", "FeedEvent", "Gap", "Receipt", "Reset"]
