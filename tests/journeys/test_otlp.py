"""The unmodified exporters of OpenTelemetry's SDK send through `kill -9`.

Programs log with Python's `logging`, and the official handler and exporters send it, in protobuf with gzip and in JSON.
No record is lost, and none is written twice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from opentelemetry.exporter.otlp.json.http._log_exporter import OTLPLogExporter as JsonExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as ProtobufExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.resources import Resource

from tests.server import Server
from tests.waits import PATIENCE_SECS, wait_until

KILLS = 2
RECORDS = 120  # of each program
IN_FLIGHT = 12  # of each program at a kill, and as many after it


@contextlib.contextmanager
def program(name: str, exporter: LogRecordExporter) -> Iterator[logging.Logger]:
    """Yield the log of a program that exports it. At the end all is sent."""
    provider = LoggerProvider(Resource.create({"service.name": name}), shutdown_on_exit=False)
    provider.add_log_record_processor(
        BatchLogRecordProcessor(exporter, schedule_delay_millis=50, max_export_batch_size=10)
    )
    log = logging.getLogger(f"tests.journeys.otlp.{name}")
    log.setLevel(logging.INFO)
    log.propagate = False
    handler = LoggingHandler(logger_provider=provider)
    log.addHandler(handler)
    try:
        yield log
    finally:
        provider.force_flush(60_000)
        provider.shutdown()
        log.removeHandler(handler)


class Work:
    """Programs that log records, up to `allowed`, until `stop` is set."""

    def __init__(self) -> None:
        self.allowed = 0
        self.stop = threading.Event()

    def run(self, log: logging.Logger) -> None:
        for number in range(RECORDS):
            log.warning("order %d is late", number, extra={"event.name": "order.late", "number": number})
            while not self.stop.wait(0.02) and number >= self.allowed:
                pass
            if self.stop.is_set():
                return


def cut_one_connection(port: int) -> None:
    """Wait for an exporter, which finds no server behind *port*.

    The exporters log a failure of the same kind once in 20 s only.
    """

    def listen() -> socket.socket | None:
        with contextlib.suppress(OSError):  # the killed worker has not ended yet
            return socket.create_server(("127.0.0.1", port))
        return None

    with wait_until(listen, "the port is free") as listener:
        listener.settimeout(PATIENCE_SECS)
        listener.accept()[0].close()


def test_the_official_exporters_send_every_record_once_across_kills(tmp_path: Path) -> None:
    work = Work()
    with Server(tmp_path) as server, contextlib.closing(sqlite3.connect(server.database)) as raw:
        settings = {"endpoint": f"{server.url}/v1/logs", "headers": {"Authorization": f"Bearer {server.token}"}}
        exporters: dict[str, LogRecordExporter] = {
            "protobuf": ProtobufExporter(**settings, timeout=90, compression=Compression.Gzip),
            "json": JsonExporter(**settings, timeout=90),
        }
        with contextlib.ExitStack() as programs:
            logs = [programs.enter_context(program(*each)) for each in exporters.items()]
            threads = [threading.Thread(target=work.run, args=[log]) for log in logs]
            for thread in threads:
                thread.start()
            try:
                for kill in range(1, KILLS + 1):
                    goal = kill * RECORDS // (KILLS + 1)
                    work.allowed = goal + IN_FLIGHT
                    wait_until(reached(raw, goal), "both send", timeout=60)
                    server.kill()
                    work.allowed += IN_FLIGHT  # so that each exporter has something to send now
                    cut_one_connection(server.port)
                    server.start()
                work.allowed = RECORDS
                wait_until(reached(raw, RECORDS), "all are sent", timeout=90)
            finally:
                work.stop.set()
                for thread in threads:
                    thread.join(60)
        logged = raw.execute("SELECT id, source, event_type, data FROM event_log WHERE source <> 'outfeed'").fetchall()
        outbox = [id_ for (id_,) in raw.execute("SELECT event_id FROM outbox ORDER BY seq")]

    data = {id_: json.loads(text) for id_, _, _, text in logged}
    for name in exporters:
        numbers = [data[id_]["number"] for id_, source, _, _ in logged if source == name]
        assert sorted(numbers) == list(range(RECORDS))
    assert len([id_ for id_ in outbox if id_ in data]) == len(logged) == 2 * RECORDS
    assert {event_type for _, _, event_type, _ in logged} == {"order.late"}
    (late,) = (found for found in data.values() if found["number"] == 7 and found["resource"]["service.name"] == "json")
    assert (late["message"], late["level"], late["severity"]) == ("order 7 is late", "warning", "WARN")


def reached(raw: sqlite3.Connection, goal: int) -> Callable[[], bool]:
    sql = "SELECT count(*) FROM event_log WHERE source = ?"
    return lambda: min(raw.execute(sql, (name,)).fetchone()[0] for name in ("protobuf", "json")) >= goal
