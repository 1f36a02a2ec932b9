"""Verification: a check of a running server, from outside.

It follows docs/protocol.md. The model knows the protocol alone: this folder imports no module of the server, no SQL and
no Flask.
"""
