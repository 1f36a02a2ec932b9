"""The benchmark of Outfeed on loopback, alone or in pairs with another checkout.

This folder uses a server only from outside: commands, SQL, HTTP and WebSocket. `calls` alone imports Outfeed, for its
public `log_event`, in a process of its own that runs in the environment of the measured checkout.
"""
