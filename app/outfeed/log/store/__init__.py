"""The SQL of the log: pages of matching events, the search index, and the activity of the last hours."""
