"""The SQL of the log: pages of matching events, and the search index."""
