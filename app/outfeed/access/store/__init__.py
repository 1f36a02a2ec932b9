"""The SQL of users, tokens, sessions and tickets.

Each function takes a database or a connection.
"""
