"""Unmodified clients of other projects send through `kill -9`.

curl sends texts, and the library of Standard Webhooks signs messages that httpx posts. No event is lost, and none is
written twice.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
from standardwebhooks.webhooks import Webhook

from tests.server import Server
from tests.waits import wait_until

KILLS = 2
MESSAGES = 30  # of each sender
RETRIES = ["--retry", "60", "--retry-all-errors", "--retry-delay", "1", "--retry-max-time", "90"]


def address(server: Server, *arguments: str) -> list[str]:
    """Add a write-only address; return its URL and its signing secret."""
    done = server.run("address", "add", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def send_by_curl(url: str, sent: list[str]) -> None:
    for number in range(MESSAGES):
        key = ["-H", f"Idempotency-Key: {number}", "-H", "Level: warning"]
        command = ["curl", "-sS", "--fail", *RETRIES, *key, "-d", f"backup {number} done", url]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        sent.append(f"curl:{number}")


def send_standard(url: str, secret: str, sent: list[str], failed: list[int], stop: threading.Event) -> None:
    """Post each message until it is accepted, and sign each attempt.

    *failed* gets the number of the message of each failed attempt.
    """
    webhook = Webhook(secret)
    for number in range(MESSAGES):
        body = json.dumps({"type": "invoice.paid", "timestamp": "2026-01-31T12:00:00Z", "data": {"number": number}})
        while not stop.is_set() and not is_accepted(webhook, url, f"msg_{number}", body):
            failed.append(number)
            stop.wait(0.1)
        sent.append(f"billing:msg_{number}")


def is_accepted(webhook: Webhook, url: str, message_id: str, body: str) -> bool:
    moment = datetime.now(UTC)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": webhook.sign(message_id, moment, body),
        "content-type": "application/json",
    }
    with contextlib.suppress(httpx.TransportError):
        return httpx.post(url, content=body, headers=headers, timeout=10, trust_env=False).is_success
    return False


def test_curl_and_standard_webhooks_send_every_event_once_across_kills(tmp_path: Path) -> None:
    by_curl: list[str] = []
    by_library: list[str] = []
    failed: list[int] = []
    stop = threading.Event()
    with Server(tmp_path) as server:
        (text_url,) = address(server, "curl", "--topic", "backups")
        webhook_url, secret = address(server, "billing", "--as", "standard")
        threads = [
            threading.Thread(target=send_by_curl, args=(text_url, by_curl)),
            threading.Thread(target=send_standard, args=(webhook_url, secret, by_library, failed, stop)),
        ]
        for thread in threads:
            thread.start()
        try:
            for kill in range(1, KILLS + 1):
                goal = kill * MESSAGES // (KILLS + 1)
                wait_until(reached(by_curl, by_library, goal), "both send", timeout=90)
                server.kill()
                server.start()
            wait_until(reached(by_curl, by_library, MESSAGES), "all are sent", timeout=90)
        finally:
            stop.set()
            for thread in threads:
                thread.join(120)
        with contextlib.closing(sqlite3.connect(server.database)) as raw:
            logged = raw.execute(
                "SELECT id, event_type, data FROM event_log WHERE source <> 'outfeed' ORDER BY rowid"
            ).fetchall()
            outbox = raw.execute("SELECT event_id FROM outbox ORDER BY seq").fetchall()

    assert failed, "a kill met a request"
    ids = [row[0] for row in logged]
    assert sorted(ids) == sorted(by_curl + by_library)
    assert [each for (each,) in outbox if each in set(ids)] == ids, "each has one row of the outbox, in order"
    assert [id_ for id_ in ids if id_.startswith("curl:")] == by_curl
    assert {event_type for _, event_type, _ in logged} == {"backups.message", "standard.invoice.paid"}
    data = {id_: json.loads(text) for id_, _, text in logged}
    assert data["curl:7"] == {"message": "backup 7 done", "level": "warning"}
    assert data["billing:msg_7"]["data"] == {"number": 7}


def reached(first: list[str], second: list[str], goal: int) -> Callable[[], bool]:
    return lambda: min(len(first), len(second)) >= goal
