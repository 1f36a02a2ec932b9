"""Start: a restart with a full database, and the viewers that all come back at once."""

from __future__ import annotations

import time
from contextlib import closing

from scripts.benchmarks import event
from scripts.benchmarks.alone.case import Alone, Figure
from scripts.benchmarks.cases import Figures
from scripts.benchmarks.load import Phase
from scripts.benchmarks.session import catch_up
from scripts.benchmarks.stage import Stage
from scripts.benchmarks.writer import SqliteSink

MISSED = 100


def measure(stage: Stage, clients: int) -> Figures:
    """While the server is away events are written; a client is back when it has them. No client waits its turn."""
    with stage.outfeed(clients, database=stage.stored(stage.sizes.stored_events)) as server:
        head = server.head()
        server.stop()
        with closing(SqliteSink(str(server.database), commit_size=1)) as sink:
            for number in range(1, MISSED + 1):
                sink.put(event.make(number, time.time_ns()))
        page_secs, ready_secs = server.restart()
        target = server.target(batch=True, rate=10, **head)
        outcome = catch_up(clients, target, Phase(MISSED, careful=clients, timeout_secs=120))
    return {"page_secs": page_secs, "ready_secs": ready_secs, "back_secs": ready_secs + outcome.seconds}


START = Alone(
    "start",
    (1000,),
    measure,
    {
        "page_secs": Figure("start to the first page served, s", "≤ 1.0"),
        "ready_secs": Figure("start to ready, s"),
        "back_secs": Figure("start to the last viewer live, 100 events behind, s", "≤ 5"),
    },
)
