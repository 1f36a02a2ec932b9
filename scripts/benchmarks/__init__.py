"""The benchmark: Outfeed beside its peers in paired rounds, and by itself; on loopback.

Rule of this folder: it knows the servers only from outside (command line, SQL, sockets). `calls` alone imports Outfeed,
for its public `log_event`, and runs in a process of its own.
"""
