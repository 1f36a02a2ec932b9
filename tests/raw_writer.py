"""Write events with plain `sqlite3`, in a process of its own.

Usage: raw_writer.py DATABASE RATE SOURCE BULK. It commits BULK rows at a time, RATE rows a second, at synchronous=FULL,
until a line comes on stdin. Then it prints the ids.
"""

import sqlite3
import sys
import threading
import time

database, rate, source, bulk = sys.argv[1], float(sys.argv[2]), sys.argv[3], int(sys.argv[4])
stopping = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stopping.set()), daemon=True).start()
connection = sqlite3.connect(database, isolation_level=None, timeout=30)
connection.execute("PRAGMA synchronous = FULL")
ids = []
began = time.monotonic()
print("writing", flush=True)
while not stopping.is_set():
    connection.execute("BEGIN IMMEDIATE")
    fresh = [f"{source}-{len(ids) + n}" for n in range(bulk)]
    for event_id in fresh:
        connection.execute(
            "INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES (?, 'load.written', ?, ?, ?)",
            (event_id, source, '{"text": "' + "x" * 150 + '"}', time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())),
        )
    connection.execute("COMMIT")
    ids += fresh
    stopping.wait(max(0.0, began + len(ids) / rate - time.monotonic()))
print("\n".join(ids))
