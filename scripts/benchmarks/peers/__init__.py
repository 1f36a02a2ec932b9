"""Other servers that push events to many clients, as peers of Outfeed.

A module here has three classes: a server, the client that reads from it, and the sink that writes to it.
"""
