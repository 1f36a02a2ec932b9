"""The kill rounds. Each ends a server at a random moment and restarts it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from scripts.soaks.stage import Followers, Stage

REPLAYED = 10_000

Round = Callable[[Stage], None]


def whole_tree(stage: Stage) -> None:
    """Kill the master and its worker at once, during writes."""
    with stage.writing():
        stage.followers.progress(50)
        stage.pause(2)
        stage.server.kill()
        stage.server.start()
        stage.followers.progress(50)


def master_alone(stage: Stage) -> None:
    """Kill only the master and start a new server at once.

    The old worker must be gone and its port free.
    """
    with stage.writing():
        stage.followers.progress(50)
        stage.pause(2)
        stage.server.kill_master()
        stage.server.start()
        stage.followers.progress(50)


def twice(stage: Stage) -> None:
    """Kill again while the clients reconnect after the first kill."""
    with stage.writing():
        stage.followers.progress(50)
        for _ in range(2):
            stage.server.kill()
            stage.server.start()
            stage.pause(0.5)
        stage.followers.progress(50)


def written_while_down(stage: Stage) -> None:
    """Write for a second or two while no server runs."""
    with stage.writing():
        stage.followers.progress(50)
        stage.server.kill()
        stage.pause(3)
        stage.server.start()
        stage.followers.progress(50)


def before_any_new_event(stage: Stage) -> None:
    """Have all clients reconnect while no event is written."""
    resumes = {id(follower): len(follower.verdicts) for follower in stage.followers.followers}
    stage.server.kill()
    stage.server.start()
    stage.followers.wait(lambda follower: len(follower.verdicts) > resumes[id(follower)], "every client resumed")
    with stage.writing():
        stage.followers.progress(50)


def during_a_replay(stage: Stage) -> None:
    """Kill the server while new clients replay the whole log."""
    with Followers(stage.server, 5) as newcomers:
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
    """Yield rounds without end: all kinds in random order, repeatedly."""
    while True:
        yield from rng.sample(ROUNDS, len(ROUNDS))
