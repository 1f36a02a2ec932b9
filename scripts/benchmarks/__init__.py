"""The benchmark of Outfeed on loopback, alone or in pairs.

A pair is this checkout and another. The folder uses a server only from outside: commands, SQL, HTTP and WebSocket. Only
`calls` imports Outfeed, for its public `log_event`, in a process in the environment of the measured checkout.
"""
