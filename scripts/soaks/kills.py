"""The kill rounds: each ends a server in its own way, at a random moment, and leaves it running again."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from scripts.soaks.stage import Company, Stage

REPLAYED = 10_000

Round = Callable[[Stage], None]


def whole_tree(stage: Stage) -> None:
    """The master and its worker at once, under fire."""
    with stage.writing():
        stage.company.progress(50)
        stage.pause(2)
        stage.server.kill()
        stage.server.start()
        stage.company.progress(50)


def master_alone(stage: Stage) -> None:
    """The master alone, and a new server at once: the old worker must be gone and its port free."""
    with stage.writing():
        stage.company.progress(50)
        stage.pause(2)
        stage.server.kill_master()
        stage.server.start()
        stage.company.progress(50)


def twice(stage: Stage) -> None:
    """A second kill while the clients come back from the first."""
    with stage.writing():
        stage.company.progress(50)
        for _ in range(2):
            stage.server.kill()
            stage.server.start()
            stage.pause(0.5)
        stage.company.progress(50)


def written_while_down(stage: Stage) -> None:
    """A second or two of events that no server saw."""
    with stage.writing():
        stage.company.progress(50)
        stage.server.kill()
        stage.pause(3)
        stage.server.start()
        stage.company.progress(50)


def before_any_new_event(stage: Stage) -> None:
    """Everybody reconnects while nothing is written."""
    resumes = {id(follower): len(follower.verdicts) for follower in stage.company.followers}
    stage.server.kill()
    stage.server.start()
    stage.company.wait(lambda follower: len(follower.verdicts) > resumes[id(follower)], "every client resumed")
    with stage.writing():
        stage.company.progress(50)


def during_a_replay(stage: Stage) -> None:
    """Newcomers read the log from its beginning, and the server is killed in the middle of it."""
    with Company(stage.server, 5) as newcomers:
        point = stage.rng.randrange(100, REPLAYED // 2)
        newcomers.wait(lambda follower: len(follower.events) > point, "replays are under way")
        stage.server.kill()
        stage.server.start()
        Stage(stage.server, newcomers, stage.rng).compare()


ROUNDS: tuple[Round, ...] = (
    whole_tree,
    master_alone,
    twice,
    written_while_down,
    before_any_new_event,
    during_a_replay,
)


def programme(rng: random.Random) -> Iterator[Round]:
    """Yield rounds without end: all kinds in random order, then again."""
    while True:
        yield from rng.sample(ROUNDS, len(ROUNDS))
