"""The retention policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from outfeed.config import Settings
from outfeed.feature import registered
from outfeed.store.database import Database


@dataclass(frozen=True, slots=True)
class Policy:
    """How long the log and the outbox keep rows, in days. None is for ever.

    In *days_by_type* an exact type takes precedence over a pattern like `task.*`.
    """

    log_days: float | None = None
    days_by_type: Mapping[str, float | None] = field(default_factory=dict)
    replay_days: float | None = None
    max_consumer_lag_days: float | None = None
    days_by_feature: Mapping[str, float | None] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings, days_by_feature: Mapping[str, float] | None = None) -> Policy:
        """Return the policy of the settings, in which 0 is for ever."""
        return cls(
            log_days=settings.retention_days or None,
            days_by_type={type_: days or None for type_, days in settings.retention_days_by_type.items()},
            replay_days=settings.replay_days or None,
            max_consumer_lag_days=settings.max_consumer_lag_days or None,
            days_by_feature={type_: days or None for type_, days in (days_by_feature or {}).items()},
        )

    @classmethod
    def current(cls, settings: Settings, database: Database) -> Policy:
        """Return the policy of the settings and of the features' tables.

        Raises DatabaseError.
        """
        with database.snapshot() as connection:
            days = {type_: days for each in registered() for type_, days in each.keep_days(connection).items()}
        return cls.of(settings, days)

    @classmethod
    def older_than(cls, days: float, settings: Settings) -> Policy:
        """Return a policy that keeps every type in the log for *days*.

        The outbox is kept as the settings say. Raises ValueError.
        """
        if not days >= 0:
            raise ValueError(f"older_than_days must be 0 or more, got {days!r}")
        configured = cls.of(settings)
        return cls(days, {}, configured.replay_days, configured.max_consumer_lag_days)

    def days_for(self, event_type: object) -> float | None:
        """Return how long the log keeps events of that type."""
        if not isinstance(event_type, str):
            return self.log_days
        if event_type in self.days_by_type:
            return self.days_by_type[event_type]
        parts = event_type.split(".")
        for length in range(len(parts) - 1, 0, -1):
            prefix = ".".join(parts[:length]) + ".*"
            if prefix in self.days_by_type:
                return self.days_by_type[prefix]
        return self.days_by_feature.get(event_type, self.log_days)

    @property
    def shortest_days(self) -> float | None:
        """Return the shortest time that the log keeps any event."""
        found = (self.log_days, *self.days_by_type.values(), *self.days_by_feature.values())
        return min((days for days in found if days is not None), default=None)


def rules_of(settings: Settings) -> list[tuple[str, str]]:
    """Return the retention rules as (scope, duration)."""
    by_type = settings.retention_days_by_type.items()
    return [
        ("Log", days_text(settings.retention_days)),
        *((f"Log, {type_}", days_text(days)) for type_, days in by_type),
        ("Outbox", days_text(settings.replay_days)),
        ("Outbox, if a protected consumer is behind", days_text(settings.max_consumer_lag_days)),
    ]


def days_text(days: float | None) -> str:
    """Return a duration in words. 0 and None are for ever."""
    return f"{days:g} day{'' if days == 1 else 's'}" if days else "for ever"


def schedule_of(settings: Settings) -> str:
    """Return the schedule of backups in words."""
    if settings.backup_dir is None:
        return "none"
    if not settings.backup_every_hours:
        return "by hand"
    hours = settings.backup_every_hours
    return f"every {'hour' if hours == 1 else f'{hours:g} hours'}, the newest {settings.backup_keep} are kept"
