"""Flask without features: what every route shares, the server, and the transports of the feed."""
