"""Probes /healthz of one server every 50 ms until its input ends.

Prints the duration of the slowest response in ms.
"""

from __future__ import annotations

import select
import sys
import time

import httpx

INTERVAL_SECS = 0.05


def probe(http: httpx.Client) -> float:
    """Return the duration of one response in seconds."""
    began = time.monotonic()
    http.get("/healthz").raise_for_status()
    return time.monotonic() - began


def main(url: str) -> None:
    """Probe until standard input ends, each time on a new connection.

    A load balancer does the same.
    """
    slowest = 0.0
    while not select.select([sys.stdin], [], [], INTERVAL_SECS)[0]:
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
            slowest = max(slowest, probe(http))
    print(slowest * 1000)


if __name__ == "__main__":
    main(sys.argv[1])
