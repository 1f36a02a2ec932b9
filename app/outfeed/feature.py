"""Features: each registers its routes, commands, jobs and tables in one object, which the layers below call.

No layer names a feature. `outfeed/features.py`, the composition root, lists them. If a folder is deleted with its line
there, every other module still imports (tests/test_layout.py).

To add a feature:

1. A folder with `feature.py`, which holds a subclass of `Feature`. It imports Flask and its own modules in its methods.
2. A line in `features.py`, and the name in `FEATURES` of tests/test_layout.py. Features do not import each other.
3. `commands.py` for commands, `api.py` for routes (`@requires` under each), `store.py` or `store/` for SQL, `part.py`
   for what runs in each serving process. A job runs in every worker; `lease.hold` makes one of them do it.
4. Tables in a new file of migrations/, with names that begin with `outfeed_`. `kept_tables` and `erase` cover them.
5. `templates/`, `static/`, and settings in `config.py`. The names of templates, static files, jobs and `status` values
   are shared by all features.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from outfeed.config import Settings

if TYPE_CHECKING:  # no command that needs neither waits for Flask to load
    from flask import Blueprint, Flask

    from outfeed.feed.core import Core
    from outfeed.jobs import Job
    from outfeed.metrics import Metric, Metrics
    from outfeed.store.database import Connection, Database
    from outfeed.store.outbox import Outbox

# Of one metric its samples: the values of the labels, and the value; None is not known.
Samples = list[tuple[list[str], float | None]]


class Process(Protocol):
    """A serving process, as its features see it."""

    settings: Settings
    metrics: Metrics
    database: Database
    outbox: Outbox
    core: Core


class Part:
    """The part of a feature that runs in each serving process. *jobs* are called by the scheduler, from `start` on."""

    jobs: Mapping[str, Job] = MappingProxyType({})

    def start(self) -> None:
        """Begin, before the first request. Raises DatabaseError."""

    def stop(self) -> None:
        """End every thread that `start` began, and have every job end soon."""

    def close(self) -> None:
        """Write what is left, and close every file, after the last job has ended."""


class Feature:
    """One feature. What a subclass does not override, it does not have."""

    # By name of the command its place, `module:attribute`, below `outfeed`: loaded when it is asked for.
    commands: ClassVar[Mapping[str, str]] = {}
    # Tables that a restore leaves as they are now, such as the rights that were revoked since the backup.
    kept_tables: ClassVar[tuple[str, ...]] = ()
    # What `samples` counts, by name.
    metrics: ClassVar[Mapping[str, Metric]] = {}
    # Addresses that people guess, and the page that each one means.
    redirects: ClassVar[Mapping[str, str]] = {}
    # The template that shows `status` on /status.
    status_template: str | None = None

    def blueprints(self) -> Iterable[Blueprint]:
        """Return the routes; each declares the permission that it needs beside its function."""
        return ()

    def init_app(self, app: Flask) -> None:
        """Set up *app* beyond routes, before they are registered."""

    def part(self, process: Process) -> Part | None:
        """Return what runs in *process*. Nothing runs before its `start`, so that a fork may come in between."""
        return None

    def check(self, settings: Settings) -> None:
        """Raise ConfigError if *settings* can't be used. Called before the database is touched; changes nothing."""

    def prepare(self, settings: Settings) -> None:
        """Make what all workers share, in the master, before the first fork. Called in the order of the features.

        Raises ConfigError, DatabaseError.
        """

    def sign_in_line(self, database: Database, url: str) -> str | None:
        """Return the line that says how to sign in at *url*."""
        return None

    def issue_token(self, database: Database, name: str, scopes: tuple[str, ...]) -> str | None:
        """Return a new token for the server's own use; an earlier one of that name is revoked."""
        return None

    def revoke_token(self, database: Database, name: str) -> None:
        """Revoke the token that `issue_token` made."""

    def holds(self, connection: Connection, event_id: str) -> bool:
        """Return whether the feature's tables may hold a copy of the event that outlives it in the log and outbox."""
        return False

    def erase(self, connection: Connection, event_id: str) -> None:
        """Remove every trace of the event from the feature's tables, in the caller's transaction."""

    def status(self, process: Process) -> Mapping[str, Any]:
        """Return what `status_template` shows."""
        return {}

    def samples(self, process: Process) -> Mapping[str, Samples]:
        """Return the present values of `metrics`. Raises DatabaseError."""
        return {}


def registered() -> tuple[Feature, ...]:
    """Return the features of the composition root, in its order."""
    found: tuple[Feature, ...] = importlib.import_module("outfeed.features").FEATURES
    return found
