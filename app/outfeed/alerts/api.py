"""Alerts over HTTP, for operators.

A rule's name and filter may tell of types that other principals may not see.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import Conflict

from outfeed import clock
from outfeed.alerts import rule as limits
from outfeed.alerts import trial
from outfeed.alerts.rule import AlertRule, Condition
from outfeed.alerts.store import notices, rules
from outfeed.alerts.targets import store as targets
from outfeed.errors import NameTaken
from outfeed.http import bodies
from outfeed.http.admin import actor
from outfeed.http.api.operation import JSON, json_answer, operation
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.log.query_language import MAX_QUERY_CHARS
from outfeed.principal import ADMIN

MAX_NOTICES = 100
_TIME, _ID = "2026-01-31T12:00:00.000Z", "019c1404-3c00-7a5e-9d2b-6f8e4c1b0a97"
alerts = Blueprint("alerts", __name__, url_prefix="/api/alerts")


class AlertSettings(BaseModel):
    """The query, condition, pause and targets of an alert."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: Annotated[
        str,
        Field(
            max_length=MAX_QUERY_CHARS,
            description="In the query language of the log, without text and times. Empty: every event.",
            examples=["type:system.error -source:ci"],
        ),
    ] = ""
    condition: Annotated[
        Literal["any", "count", "absence"],
        Field(
            description="`any` event, a `count` above `threshold` in the window, or the `absence` of events.",
            examples=["count"],
        ),
    ] = "any"
    threshold: Annotated[int, Field(ge=0, le=limits.MAX_THRESHOLD, examples=[10])] = 0
    window_secs: Annotated[int, Field(ge=0, le=limits.MAX_WINDOW_SECS, examples=[300])] = 0
    pause_secs: Annotated[
        int,
        Field(
            ge=limits.MIN_PAUSE_SECS,
            le=limits.MAX_PAUSE_SECS,
            description="Least time between two alerts.",
            examples=[300],
        ),
    ] = limits.DEFAULT_PAUSE_SECS
    targets: Annotated[list[str], Field(max_length=limits.MAX_TARGETS, examples=[[]])] = []

    def rule(self, name: str) -> AlertRule:
        """Return the checked rule. Raises InvalidRequest."""
        found = AlertRule(
            name, self.query, Condition(self.condition), self.threshold, self.window_secs, self.pause_secs,
            tuple(self.targets),
        ).checked()  # fmt: skip
        require_targets(found)
        return found


class NewAlert(AlertSettings):
    """The alert to add."""

    name: Annotated[str, Field(min_length=1, max_length=55, examples=["errors"])]


class AlertTrial(AlertSettings):
    """The alert to try on the past."""

    days: Annotated[int, Field(ge=1, le=trial.MAX_DAYS, examples=[7])] = trial.DEFAULT_DAYS


class AlertAnswer(BaseModel):
    """An alert with its state."""

    name: str = Field(examples=["errors"])
    query: str = Field(examples=["type:system.error -source:ci"])
    condition: str = Field(examples=["count"])
    threshold: int = Field(examples=[10])
    window_secs: int = Field(examples=[300])
    pause_secs: int = Field(examples=[300])
    targets: list[str] = Field(examples=[["ops"]])
    is_paused: bool = Field(examples=[False])
    state: str = Field(description="`ok`, `raised` or `uncertain`.", examples=["ok"])
    raises: int = Field(description="Number of alerts so far.", examples=[3])
    raised_at: str | None = Field(description="The time of the last alert.", examples=[_TIME])
    created_at: str = Field(examples=[_TIME])


class AlertList(BaseModel):
    """Every alert, by name."""

    alerts: list[AlertAnswer]


class NoticeAnswer(BaseModel):
    """A notice for one target."""

    event_id: str = Field(description="Id of the `alert.*` event, which each retry carries.", examples=[_ID])
    target: str = Field(examples=["ops"])
    kind: str = Field(description="`raised`, `cleared` or `uncertain`.", examples=["raised"])
    title: str = Field(examples=["errors: more than 10 events in 5 min (12)"])
    occurred_at: str = Field(examples=[_TIME])
    state: str = Field(description="`waiting`, `delivered` or `failed`.", examples=["delivered"])
    attempts: int = Field(description="Failed attempts.", examples=[0])
    last_error: str | None = Field(examples=[None])


class AlertDetails(AlertAnswer):
    """An alert with its newest notices."""

    notices: list[NoticeAnswer]


class TrialAnswer(BaseModel):
    """The result of a trial."""

    summary: str = Field(examples=["Would have raised 3 times in the last 7 days."])
    raises: int = Field(examples=[3])
    matches: int = Field(description="Number of matching events.", examples=[120])
    begin: str = Field(description="The trial covers the time since then.", examples=[_TIME])
    limit: str | None = Field(description="Why it does not reach back all days.", examples=[None])
    times: list[str] = Field(description="The times of the newest alerts, newest first.", examples=[[_TIME]])


_INVALID = "A field breaks a rule, the query is invalid or has text or a time, or a target does not exist."
_UNKNOWN = {404: "No alert has this name."}
_BODY = {400: "The body is not JSON.", 415: "The body is not JSON.", 422: _INVALID}


@alerts.get("")
@requires(ADMIN)
@operation(answers={200: AlertList})
def list_alerts() -> Response:
    """Return every alert, by name."""
    return json_answer({"alerts": [each.as_dict() for each in rules.list_alerts(services().database)]})


@alerts.post("")
@requires(ADMIN)
@operation(body={JSON: NewAlert}, answers={201: AlertAnswer}, refusals={**_BODY, 409: "The name is taken."})
def add() -> Response:
    """Add an alert, which watches events from now on."""
    given = bodies.read_object(NewAlert)
    try:
        return json_answer(rules.add(services().database, given.rule(given.name), actor()).as_dict(), 201)
    except NameTaken as error:
        raise Conflict(str(error)) from None


@alerts.get("/<name>")
@requires(ADMIN)
@operation(answers={200: AlertDetails}, refusals=_UNKNOWN)
def show(name: str) -> Response:
    """Return the alert and its newest notices."""
    found = rules.find(services().database, name)
    sent = notices.list_notices(services().database, name, MAX_NOTICES)
    shown = [{field: getattr(each, field) for field in NoticeAnswer.model_fields} for each in sent]
    return json_answer({**found.as_dict(), "notices": shown})


@alerts.put("/<name>")
@requires(ADMIN)
@operation(body={JSON: AlertSettings}, answers={200: AlertAnswer}, refusals={**_BODY, **_UNKNOWN})
def edit(name: str) -> Response:
    """Replace the alert's settings.

    With another query or condition, the alert begins again in the state `ok`.
    """
    rule = bodies.read_object(AlertSettings).rule(name)
    return json_answer(rules.edit(services().database, rule, actor()).as_dict())


@alerts.delete("/<name>")
@requires(ADMIN)
@operation(answers={200: AlertList}, refusals=_UNKNOWN)
def remove(name: str) -> Response:
    """Delete the alert and its waiting notices, and return the others."""
    rules.remove(services().database, name, actor())
    return list_alerts()


@alerts.post("/<name>/pause")
@requires(ADMIN)
@operation(answers={200: AlertAnswer}, refusals=_UNKNOWN)
def pause(name: str) -> Response:
    """Stop watching for the alert."""
    rules.pause(services().database, name, actor())
    return json_answer(rules.find(services().database, name).as_dict())


@alerts.post("/<name>/resume")
@requires(ADMIN)
@operation(answers={200: AlertAnswer}, refusals=_UNKNOWN)
def resume(name: str) -> Response:
    """Watch for a paused alert again, from now on."""
    rules.resume(services().database, name, actor())
    return json_answer(rules.find(services().database, name).as_dict())


@alerts.post("/trial")
@requires(ADMIN)
@operation(body={JSON: AlertTrial}, answers={200: TrialAnswer}, refusals=_BODY)
def try_() -> Response:
    """Try an alert on the events of the past. Nothing is changed.

    The work is bounded, so the trial may reach back less far and says so.
    """
    given = bodies.read_object(AlertTrial)
    return json_answer(trial_answer(trial.run(services().database, given.rule("trial"), given.days)))


def trial_answer(found: trial.Trial) -> dict[str, Any]:
    """Return what JSON shows of a trial."""
    return {
        "summary": str(found), "raises": found.raises, "matches": found.matches, "begin": clock.isoformat(found.begin),
        "limit": found.limit, "times": [clock.isoformat(each) for each in found.times],
    }  # fmt: skip


def require_targets(rule: AlertRule) -> None:
    """Raise InvalidRequest if a target of the rule does not exist."""
    unknown = targets.unknown(services().database, rule.targets)
    if unknown:
        raise limits.invalid("targets", f"there is no target {unknown[0]!r:.80}")
