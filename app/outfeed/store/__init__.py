"""SQLite. Nothing outside this room (and migrations/) imports sqlite3; nothing in it imports Flask or the feed."""
