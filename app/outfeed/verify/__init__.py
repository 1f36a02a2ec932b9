"""Verification: a black-box check of a running server against docs/protocol.md.

The model knows the protocol alone: no module of the server, no SQL and no Flask is imported here.
"""
