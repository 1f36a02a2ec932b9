"""Verification: a check of a running server, from outside.

It follows docs/protocol.md. The model knows the protocol alone: no module of the server, no SQL and no Flask is imported here.
"""
