"""The server process: gunicorn with one override.

It replaces the accept, for slow and incomplete requests.
"""
