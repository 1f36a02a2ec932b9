"""Changes of targets, by the commands and by the page."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import NamedTuple

from outfeed import clock
from outfeed.alerts.store.rules import rules_with_target
from outfeed.alerts.targets import store
from outfeed.alerts.targets.kind import MAX_SETTING_CHARS, Kind
from outfeed.alerts.targets.kinds import KINDS
from outfeed.alerts.targets.notice import AlertTarget, Notice, NoticeKind, Outcome
from outfeed.alerts.targets.stored import StoredTargets
from outfeed.config import Settings
from outfeed.display import Level
from outfeed.errors import InvalidTarget, TargetInUse, TargetUnresolvable
from outfeed.store.database import Database
from outfeed.webhooks.addresses import Allowlist
from outfeed.webhooks.message import new_secret


class Change(NamedTuple):
    """The result of `add` and `edit`.

    *secret* is a new one, to be shown once, or None. *warning* is a sentence, or None.
    """

    secret: str | None
    warning: str | None


def add(
    database: Database, settings: Settings, name: str, kind: str, given: Mapping[str, str], by: str | None
) -> Change:
    """Insert a target.

    A webhook without a secret gets a new one. Raises InvalidTarget, NameTaken, TargetForbidden.
    """
    secret = new_secret() if kind == "webhook" and not given.get("secret") else None
    made = _checked(KINDS[kind], {**given, "secret": secret} if secret else given)
    warning = _check_address(KINDS[kind], made, settings)
    store.add(database, AlertTarget(name, kind, made), by)
    return Change(secret, warning)


def edit(database: Database, settings: Settings, name: str, given: Mapping[str, str], by: str | None) -> Change:
    """Change some settings. An empty value removes an optional one.

    A password or token must be given again if the server is another one, so that no other server gets a stored one.
    Raises InvalidTarget, UnknownName, TargetForbidden.
    """
    found = store.find(database, name)
    kind = KINDS[found.kind]
    made = _checked(kind, {**found.settings, **given})
    _require_new_credentials(kind, found.settings, made, given)
    warning = _check_address(kind, made, settings)
    store.change(database, name, made, by)
    return Change(None, warning)


def remove(database: Database, name: str, by: str | None, *, is_forced: bool) -> None:
    """Delete a target and its secrets.

    Raises UnknownName, and TargetInUse if rules send to it and it is not forced.
    """
    with database.transaction() as connection:
        rules = rules_with_target(connection, name)
        if rules and not is_forced:
            raise TargetInUse(f"the target {name} is used by: {', '.join(rules)}; change them first, or pass --force")
        store.remove(connection, name, by)


def rules_of(database: Database, name: str) -> list[str]:
    """Return the names of the rules that send to the target."""
    with database.connection() as connection:
        return rules_with_target(connection, name)


def send_test(database: Database, settings: Settings, name: str) -> tuple[Outcome, float]:
    """Send a test notice, and return the outcome and the seconds it took.

    Raises UnknownName.
    """
    target = store.find(database, name)
    began = clock.monotonic()
    outcome = StoredTargets(database, settings).send(target, _test_notice(name, settings))
    return outcome, clock.monotonic() - began


def _test_notice(name: str, settings: Settings) -> Notice:
    return Notice(
        event_id=f"test-{secrets.token_hex(16)}",
        kind=NoticeKind.TEST,
        rule="",
        title=f"Test of {name}",
        text="An operator has sent this test. Notices of alerts arrive here.",
        level=Level.INFO,
        url=settings.public_url,
        occurred_at=clock.timestamp(),
    )


def _checked(kind: Kind, given: Mapping[str, str]) -> dict[str, str]:
    """Return the settings to store. Raises InvalidTarget, which names one."""
    known = {each.name for each in kind.settings}
    for name, value in given.items():
        if name not in known:
            raise InvalidTarget(name, f"{kind.label} has only the settings {', '.join(sorted(known))}")
        if len(value) > MAX_SETTING_CHARS or not value.isprintable():
            raise InvalidTarget(name, f"must be one line of at most {MAX_SETTING_CHARS} characters")
    cleaned = {name: value.strip() for name, value in given.items() if value.strip()}
    for each in kind.settings:
        if each.is_required and not cleaned.get(each.name):
            raise InvalidTarget(each.name, f"must be given. {each.help}")
    return kind.checked(cleaned)


def _require_new_credentials(
    kind: Kind, before: Mapping[str, str], made: Mapping[str, str], given: Mapping[str, str]
) -> None:
    if kind.endpoint(before) == kind.endpoint(made):
        return
    for each in kind.settings:
        if each.is_sent and made.get(each.name) and not given.get(each.name):
            raise InvalidTarget(each.name, "must be given again, because the server is another one")


def _check_address(kind: Kind, made: Mapping[str, str], settings: Settings) -> str | None:
    """Return a warning if the host has no address yet.

    Raises TargetForbidden if the server would not connect to it.
    """
    endpoint = kind.endpoint(made)
    if endpoint is None:
        return None
    try:
        Allowlist.parse(settings.webhook_allow).resolve(*endpoint)
    except TargetUnresolvable as problem:
        return str(problem)
    return None
