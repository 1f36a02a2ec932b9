"""The benchmark: Outfeed beside its peers, on loopback, in paired rounds.

Rule of this folder: it knows the servers only from outside (command line, SQL, sockets) and never imports `app`.
"""
