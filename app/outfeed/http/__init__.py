"""Flask without features: shared routes, the server and the transports."""
