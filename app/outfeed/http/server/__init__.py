"""The server process: gunicorn with one override at the accept, for slow and half requests."""
