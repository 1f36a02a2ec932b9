"""SQLite storage.

Only this package and migrations/ import sqlite3. The package imports neither Flask nor the feed.
"""
