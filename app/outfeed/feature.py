"""Features: each registers its routes, commands, jobs and tables.

A feature registers all parts in one object, which the layers below call. No layer names a feature.
`outfeed/features.py`, the composition root, lists them. If a folder is deleted with its line there, every other module
still imports (tests/test_layout.py).

To add a feature:

1. Make a folder with `feature.py`, which holds a subclass of `Feature`. It imports Flask and its own modules in its
   methods.
2. Add a line to `features.py`, and the name to `FEATURES` of tests/test_layout.py. Features do not import each other.
3. Use `commands.py` for commands, `api.py` for routes (`@requires` under each), `store.py` or `store/` for SQL, and
   `part.py` for the code that runs in each serving process. A job runs in every worker; with `lease.hold` one of them
   does the work.
4. Put tables in a new file of migrations/, with names that begin with `outfeed_`. `kept_tables` and `erase` cover them.
5. Put pages for operators at `/admin/…`, list them in `admin_pages`, and extend `admin.html` (http/admin.py).
6. Use `templates/`, `static/`, and settings in `config/__init__.py`. The names of templates, static files, jobs and
   `status` and `about_event` values are shared by all features.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from outfeed.config import Settings

if TYPE_CHECKING:  # commands that need neither start without loading Flask
    from flask import Blueprint, Flask

    from outfeed.display import Display
    from outfeed.feed.core import Core
    from outfeed.jobs import Job
    from outfeed.metrics import Metric, Metrics
    from outfeed.principal import Principal
    from outfeed.store.database import Connection, Database
    from outfeed.store.displays import DisplayCache
    from outfeed.store.outbox import Outbox

# The samples of one metric: the values of the labels, and the value, None if unknown.
Samples = list[tuple[list[str], float | None]]


PROBLEM, NOTE = "problem", "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of `outfeed doctor`.

    *fix_command* is what an operator types. *fix* repairs the problem and has no other effect.
    """

    level: str
    what: str
    why: str
    fix_command: str
    fix: Callable[[], object] | None = field(default=None, repr=False, compare=False)


class AdminGroup(StrEnum):
    """A heading of the administration's navigation, in its order."""

    ACCESS = "Access"
    DELIVERY = "Delivery"
    DATA = "Data"
    SERVER = "Server"


class AdminPage(NamedTuple):
    """A page for operators: its place in the navigation of /admin."""

    group: AdminGroup
    label: str
    endpoint: str
    summary: str


class AdminFact(NamedTuple):
    """A short figure about an administration page, for its index."""

    text: str
    is_trouble: bool = False


class SignIn(NamedTuple):
    """A sentence about signing in, and the link that it ends with."""

    text: str
    url: str


class Process(Protocol):
    """A serving process, as its features see it."""

    settings: Settings
    metrics: Metrics
    database: Database
    outbox: Outbox
    displays: DisplayCache
    core: Core


class SharedGrants(Protocol):
    """The grants that other hosts look up.

    They are a copy of the account tables.
    """

    def create_ticket(self, principal: Principal) -> str:
        """Return a ticket in *principal*'s name, which any host takes once.

        Raises SourceError.
        """
        ...

    def take_ticket(self, ticket: str) -> str | None:
        """Use *ticket* up, and return the grant that it rests on.

        The result is None for a bad one. Raises SourceError.
        """
        ...

    def add(self, principal: Principal) -> None:
        """Make a new grant known at once. Never raises."""
        ...

    def publish(self, database: Database) -> None:
        """Make every grant known, and those that are gone. Raises SourceError."""
        ...


class Part:
    """The part of a feature that runs in each serving process.

    `prepare` is called before the feed begins. The scheduler calls *jobs*, from `start` on.
    """

    jobs: Mapping[str, Job] = MappingProxyType({})

    def prepare(self) -> None:
        """Read what must be older than the events that the feed begins with.

        Raises DatabaseError.
        """

    def start(self) -> None:
        """Start the part, before the first request. Raises DatabaseError."""

    def stop(self) -> None:
        """End every thread that `start` began; make every job end soon."""

    def problems(self) -> list[str]:
        """Return why the process is not ready, one sentence each."""
        return []

    def close(self) -> None:
        """Write remaining data and close every file.

        It is called after the last job has ended.
        """


class Feature:
    """One feature.

    A method or attribute that a subclass does not override adds nothing.
    """

    # The commands: from each name to its place, `module:attribute` below `outfeed`, which is loaded on its first use.
    commands: ClassVar[Mapping[str, str]] = {}
    # Tables that a restore leaves as they are now, such as permissions that were revoked since the backup.
    kept_tables: ClassVar[tuple[str, ...]] = ()
    # The metrics that `samples` returns, by name.
    metrics: ClassVar[Mapping[str, Metric]] = {}
    # Addresses that people guess, and the page that each one redirects to.
    redirects: ClassVar[Mapping[str, str]] = {}
    # The pages for operators. The view of each declares `@requires(ADMIN, is_page=True)`.
    admin_pages: ClassVar[tuple[AdminPage, ...]] = ()
    # The template that shows `status` on /status.
    status_template: str | None = None
    # The template that shows `about_event` on the page of an event.
    event_template: str | None = None

    def displays(self) -> Mapping[str, Display]:
        """Return displays of event types that the feature brings.

        A display that was set for the same type replaces it.
        """
        return {}

    def blueprints(self) -> Iterable[Blueprint]:
        """Return the routes.

        Each route declares the permission that it needs beside its function.
        """
        return ()

    def edge_blueprints(self) -> Iterable[Blueprint]:
        """Return those of the routes that edges register, too.

        Their views use `serving()`, which has no database.
        """
        return ()

    def init_app(self, app: Flask) -> None:
        """Set up *app* beyond routes, before they are registered."""

    def part(self, process: Process) -> Part | None:
        """Return the part that runs in *process*, or None.

        The part does nothing before its `start`, so that a fork may come in between.
        """
        return None

    def check(self, settings: Settings) -> None:
        """Raise ConfigError if *settings* can't be used.

        It is called before the database is touched, and changes nothing.
        """

    def prepare(self, settings: Settings) -> None:
        """Create what all workers share, in the master, before the first fork.

        It is called in the order of the features. Raises ConfigError, DatabaseError.
        """

    def sign_in(self, database: Database, url: str) -> SignIn | None:
        """Return how a person signs in at *url*, or None."""
        return None

    def issue_token(self, database: Database, name: str, scopes: tuple[str, ...]) -> str | None:
        """Return a new token for the server's own use, or None.

        An earlier token of that name is revoked.
        """
        return None

    def create_token(self, database: Database, name: str, scopes: tuple[str, ...], by: str) -> str | None:
        """Return a new token for a program, or None.

        *by* is the actor in the audit. Raises NameTaken, and ValueError for an invalid name.
        """
        return None

    def revoke_token(self, database: Database, name: str) -> None:
        """Revoke the token that `issue_token` made."""

    def agent_names(self, connection: Connection) -> Mapping[str, str]:
        """Return the names of the newest agents that the feature knows, by id."""
        return {}

    def keep_days(self, connection: Connection) -> Mapping[str, float]:
        """Return the days that the log keeps events, by exact type.

        0 is for ever. Settings take precedence.
        """
        return {}

    def clean(self, connection: Connection) -> None:
        """Delete rows that nothing needs any more.

        Each retention run calls it, in a transaction of its own.
        """

    def holds(self, connection: Connection, event_id: str) -> bool:
        """Return whether the feature's tables may hold a copy of the event.

        The copy may outlive the event in the log and the outbox.
        """
        return False

    def erase(self, connection: Connection, event_id: str) -> None:
        """Remove every copy of the event from the feature's tables.

        The caller's transaction does it.
        """

    def check_health(self, database: Database, settings: Settings) -> Mapping[str, Iterable[Finding]]:
        """Return the findings of `outfeed doctor` by the name of each rule.

        Raises DatabaseError.
        """
        return {}

    def repair(self, database: Database, settings: Settings) -> None:
        """Repair the feature's tables and triggers after an upgrade.

        Raises DatabaseError.
        """

    def shared_grants(self, settings: Settings) -> SharedGrants | None:
        """Return where other hosts find grants; None if there are no other hosts."""
        return None

    def status(self, process: Process) -> Mapping[str, Any]:
        """Return the values that `status_template` shows."""
        return {}

    def admin_facts(self, process: Process) -> Mapping[str, AdminFact]:
        """Return a figure for each of `admin_pages`, by endpoint.

        A page without a figure is left out. Raises DatabaseError.
        """
        return {}

    def about_event(self, process: Process, event_id: str, principal: Principal) -> Mapping[str, Any]:
        """Return the values that `event_template` shows for an event.

        Without values, or for a principal who may not see them, the part is left out. Raises DatabaseError.
        """
        return {}

    def samples(self, process: Process) -> Mapping[str, Samples]:
        """Return the current values of `metrics`. Raises DatabaseError."""
        return {}


def shared_grants(settings: Settings) -> SharedGrants | None:
    """Return where other hosts find grants; None if there are no other hosts."""
    return next(filter(None, (feature.shared_grants(settings) for feature in registered())), None)


def shipped_displays() -> dict[str, Display]:
    """Return the displays that the features bring, by type."""
    return {name: display for feature in registered() for name, display in feature.displays().items()}


def registered() -> tuple[Feature, ...]:
    """Return the features of the composition root, in its order."""
    found: tuple[Feature, ...] = importlib.import_module("outfeed.features").FEATURES
    return found
