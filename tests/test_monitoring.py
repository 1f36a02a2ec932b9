"""The alerts and the dashboard name metrics that exist.

The expressions are read by the PromQL parser that promql-parser binds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from outfeed import manual
from outfeed.http.metrics import declared_metrics
from outfeed.metrics import PREFIX, WORKER, Metric

DEPLOY = Path(__file__).parents[1] / "scripts" / "deploy"
RULES = [
    rule for group in yaml.safe_load((DEPLOY / "outfeed.rules.yml").read_text())["groups"] for rule in group["rules"]
]
BOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel, each) for panel in PANELS for each in panel["targets"]]
RUNBOOKS = "https://feed.example.com/docs/"
OF_PROMETHEUS = {"job", "instance"}  # the labels that a scrape adds


def series() -> dict[str, set[str]]:
    """Return the labels of each series that a server exports, by its name."""
    of_workers = {name: each._replace(labels=("worker", *each.labels)) for name, each in WORKER.items()}
    found = {}
    for name, declared in (of_workers | declared_metrics()).items():
        for suffix, more in suffixes(declared):
            found[f"{PREFIX}{name}{suffix}"] = {*declared.labels, *more}
    return found | {"up": set()}  # Prometheus itself has `up`


def suffixes(declared: Metric) -> list[tuple[str, tuple[str, ...]]]:
    if declared.kind == "histogram":
        return [("_bucket", ("le",)), ("_sum", ()), ("_count", ())]
    return [("_total", ())] if declared.kind == "counter" else [("", ())]


def problems(expression: str) -> list[str]:
    """Return the unknown names and labels of *expression*, of any level."""
    known, found = series(), []
    tree = promql.parse(expression.replace("$__rate_interval", "5m"))
    selectors = list(nodes(tree, promql.VectorSelector))
    for selector in selectors:
        if selector.name not in known:
            found.append(f"no metric {selector.name}")
        else:
            named = {matcher.name for matcher in selector.matchers.matchers}
            found += [f"{selector.name} has no label {each}" for each in named - known[selector.name] - OF_PROMETHEUS]
    labels = OF_PROMETHEUS.union(*(known.get(selector.name, set()) for selector in selectors))
    for aggregate in nodes(tree, promql.AggregateExpr):
        named = set(aggregate.modifier.labels) if aggregate.modifier else set()
        found += [f"no label {each}" for each in named - labels]
    return found


def nodes(tree: promql.Expr, kind: type) -> Iterator[Any]:
    found: list[Any] = []
    promql.walk(tree, found.append)
    yield from (node for node in found if isinstance(node, kind))


def labels_after(expression: str) -> set[str]:
    """Return the labels that the result of *expression* may have."""
    tree = promql.parse(expression.replace("$__rate_interval", "5m"))
    aggregates = [each for each in nodes(tree, promql.AggregateExpr) if str(each.op) != "topk"]
    if aggregates:
        return set(aggregates[0].modifier.labels) if aggregates[0].modifier else set()
    known = series()
    return OF_PROMETHEUS.union(*(known.get(each.name, set()) for each in nodes(tree, promql.VectorSelector)))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
class TestRules:
    def test_an_alert_names_metrics_and_labels_that_exist(self, rule: Any) -> None:
        assert problems(rule["expr"]) == []
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert promql.parse_duration(rule.get("for", "1m"))

    def test_the_summary_of_an_alert_uses_labels_that_its_result_has(self, rule: Any) -> None:
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert named
        assert named <= labels_after(rule["expr"])

    def test_the_runbook_of_an_alert_is_a_section_of_the_documentation(self, rule: Any) -> None:
        topic, _, anchor = rule["annotations"]["runbook_url"].removeprefix(RUNBOOKS).partition("#")
        (section,) = [each for each in manual.sections() if (each.topic, each.anchor) == (topic, anchor)]
        assert section.title == rule["alert"]
        assert rule["alert"] in manual.read("metrics")


def test_no_two_alerts_have_one_name() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


class TestDashboard:
    @pytest.mark.parametrize(("panel", "query"), QUERIES, ids=[f"{p['title']}-{q['refId']}" for p, q in QUERIES])
    def test_a_panel_shows_metrics_and_labels_that_exist(self, panel: Any, query: Any) -> None:
        assert problems(query["expr"]) == []
        assert set(re.findall(r"\{\{(\w+)\}\}", query["legendFormat"])) <= labels_after(query["expr"])
        assert query["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}

    def test_the_dashboard_shows_every_metric_that_has_an_alert(self) -> None:
        alerted = {each.name for rule in RULES for each in nodes(promql.parse(rule["expr"]), promql.VectorSelector)}
        shown = {each.name for _, query in QUERIES for each in nodes(parsed(query), promql.VectorSelector)}
        assert alerted - shown == {"up", "outfeed_maintenance_failure_timestamp_seconds", "outfeed_engine_up"}

    def test_panels_have_ids_of_their_own_and_do_not_overlap(self) -> None:
        assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
        places = [panel["gridPos"] for panel in BOARD["panels"]]
        assert [(a, b) for a, b in combinations(places, 2) if overlap(a, b)] == []
        assert all(place["x"] + place["w"] <= 24 for place in places)

    def test_its_variables_are_those_that_the_panels_use(self) -> None:
        used = set(re.findall(r"\$\{?(\w+)", json.dumps(BOARD["panels"]))) - {"__rate_interval"}
        assert used == {each["name"] for each in BOARD["templating"]["list"]} == {"datasource", "instance"}


def parsed(query: Any) -> promql.Expr:
    return promql.parse(query["expr"].replace("$__rate_interval", "5m"))


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size] for at, size in (("x", "w"), ("y", "h"))
    )


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("outfeed_nothing > 1", "no metric outfeed_nothing"),
        ("rate(outfeed_events[5m])", "no metric outfeed_events"),
        ('outfeed_clients{colour="red"}', "outfeed_clients has no label colour"),
        ("sum by (webhook) (outfeed_clients)", "no label webhook"),
    ],
)
def test_an_unknown_name_or_label_is_found(expression: str, problem: str) -> None:
    assert problems(expression) == [problem]


@pytest.mark.parametrize("expression", ["sum(outfeed_ready", "outfeed_ready >", "rate(outfeed_ready[5 bananas])"])
def test_an_expression_with_a_mistake_is_rejected(expression: str) -> None:
    with pytest.raises(ValueError, match=r"invalid|unexpected|unclosed|bad|expected|missing"):
        problems(expression)
