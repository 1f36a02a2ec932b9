"""The feature for alerts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from outfeed.config import Settings
from outfeed.feature import PROBLEM, AdminFact, AdminGroup, AdminPage, Feature, Finding, Process, Samples
from outfeed.metrics import Metric

if TYPE_CHECKING:
    from flask import Blueprint

    from outfeed.alerts.part import AlertsPart
    from outfeed.store.database import Connection, Database


class AlertsFeature(Feature):
    """Rules on the events of the feed, and the notices that they send."""

    commands: ClassVar[Mapping[str, str]] = {
        "alert": "alerts.commands:alert",
        "target": "alerts.targets.commands:target",
    }
    # Rules and waiting notices stay as they are now, as their targets do. The rules become uncertain.
    kept_tables = ("outfeed_alert", "outfeed_alert_evaluation", "outfeed_alert_notice", "outfeed_alert_target")
    metrics: ClassVar[Mapping[str, Metric]] = {
        "alert_raises": Metric("counter", "Alerts that a rule has raised.", ("alert",)),
        "alert_lag": Metric("gauge", "Seqs that the rules of alerts have not evaluated. NaN without rules."),
        "alert_notices": Metric("gauge", "Notices of the last 30 days, by target and state.", ("target", "state")),
    }
    status_template = "_alerts_status.html"
    admin_pages = (
        AdminPage(AdminGroup.DELIVERY, "Alerts", "alert_pages.show", "Be told when events come, or come no more."),
        AdminPage(AdminGroup.DELIVERY, "Targets", "target_pages.show", "Places that notices of alerts are sent to."),
    )

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.alerts.api import alerts
        from outfeed.alerts.pages import alert_pages
        from outfeed.alerts.targets.pages import target_pages

        return alerts, alert_pages, target_pages

    def admin_facts(self, process: Process) -> Mapping[str, AdminFact]:
        from outfeed.alerts.progress import AlertState
        from outfeed.alerts.store import notices, rules
        from outfeed.alerts.targets import store

        found = rules.list_alerts(process.database)
        raised = sum(each.state is not AlertState.OK and not each.is_paused for each in found)
        failing = sum(each.last_error is not None for each in notices.queues(process.database))
        targets = len(store.list_targets(process.database))
        return {
            "alert_pages.show": AdminFact(
                f"{raised:,} of {len(found):,} raised" if raised else f"{len(found):,}", raised > 0
            ),
            "target_pages.show": AdminFact(f"{failing:,} failing" if failing else f"{targets:,}", failing > 0),
        }

    def part(self, process: Process) -> AlertsPart:
        from outfeed.alerts.part import AlertsPart

        return AlertsPart(process)

    def clean(self, connection: Connection) -> None:
        from outfeed.alerts.store import notices

        notices.clean(connection)

    def check_health(self, database: Database, settings: Settings) -> Mapping[str, Iterable[Finding]]:
        from outfeed.alerts.store import evaluation, notices

        failing = [
            Finding(
                PROBLEM,
                f"the target {each.target} does not accept notices: {each.last_error}",
                f"{'1 notice waits' if each.waiting == 1 else f'{each.waiting:,} notices wait'} for it",
                f"outfeed target test {each.target}",
            )
            for each in notices.queues(database)
            if each.last_error is not None
        ]
        secs = evaluation.secs_behind(database)
        behind = Finding(
            PROBLEM,
            f"the rules of alerts are {secs:,.0f} s behind the events",
            "no server evaluates them, or it is overloaded",
            "outfeed serve",
        )
        return {
            "alert targets": [*failing, *self._missing_targets(database)],
            "alert evaluation": [behind] if secs > evaluation.MAX_SECS_BEHIND else [],
        }

    def _missing_targets(self, database: Database) -> Iterable[Finding]:
        from outfeed.alerts.store import rules
        from outfeed.alerts.targets import store

        for each in rules.list_alerts(database):
            for name in store.unknown(database, each.rule.targets):
                problem = f"the alert {each.name} has no target {name}", "its notices are not sent"
                yield Finding(PROBLEM, *problem, f"outfeed alert edit {each.name} --to NAMES")

    def status(self, process: Process) -> Mapping[str, Any]:
        from outfeed.alerts.store import evaluation, notices, rules

        return {
            "alerts": rules.list_alerts(process.database),
            "alert_queues": notices.queues(process.database),
            "alert_lag": evaluation.lag(process.database),
        }

    def samples(self, process: Process) -> Mapping[str, Samples]:
        from outfeed.alerts.store import evaluation, notices, rules

        queues = notices.queues(process.database)
        return {
            "alert_raises": [([each.name], each.raises) for each in rules.list_alerts(process.database)],
            "alert_lag": [([], evaluation.lag(process.database))],
            "alert_notices": [
                ([each.target, state.value], getattr(each, state.value))
                for each in queues
                for state in notices.NoticeState
            ],
        }
