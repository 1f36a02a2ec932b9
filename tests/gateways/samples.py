"""Requests of other programs, in the form that their documentation gives."""

from __future__ import annotations

from typing import Any

GITHUB_ISSUE = {
    "action": "opened",
    "issue": {
        "url": "https://api.github.com/repos/octocat/Hello-World/issues/1347",
        "html_url": "https://github.com/octocat/Hello-World/issues/1347",
        "number": 1347, "title": "Found a bug", "state": "open",
    },
    "repository": {"id": 1296269, "full_name": "octocat/Hello-World", "html_url": "https://github.com/octocat/Hello-World"},
    "sender": {"login": "octocat", "id": 1},
}  # fmt: skip
GITHUB_PING = {"zen": "Keep it logically awesome.", "hook_id": 1, "hook": {"type": "Organization"}}


def github_run(conclusion: str) -> dict[str, Any]:
    run = {"name": "CI", "conclusion": conclusion, "run_number": 562, "head_branch": "main", "head_sha": "acb5820ced95"}
    return {**GITHUB_ISSUE, "action": "completed", "issue": None, "workflow_run": run}


ALERT = {
    "status": "firing",
    "labels": {
        "alertname": "ProbeFailure", "instance": "https://server.example.org", "job": "http_checks",
        "severity": "critical",
    },
    "annotations": {"description": "The server has been down for 5m.", "summary": "Probe failure: server.example.org"},
    "startsAt": "2023-02-06T13:08:45.828Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prometheus.example.org:9090/graph?g0.expr=probe_success+%3D%3D+0",
    "fingerprint": "1a30ba71cca2921f",
}  # fmt: skip


def alertmanager(*alerts: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "4",
        "groupKey": '{}/{severity="critical"}:{alertname="ProbeFailure"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "outfeed",
        "groupLabels": {"alertname": "ProbeFailure"},
        "commonLabels": ALERT["labels"],
        "commonAnnotations": ALERT["annotations"],
        "externalURL": "http://prometheus.example.org:9093",
        "alerts": list(alerts),
    }


GRAFANA = {
    "receiver": "My Super Webhook",
    "status": "firing",
    "orgId": 1,
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "High memory usage", "team": "blue", "zone": "us-1", "grafana_folder": "Nodes"},
            "annotations": {
                "summary": "This alert was triggered for zone us-1",
                "runbook_url": "https://run.example/1",
            },
            "startsAt": "2021-10-12T09:51:03.157076+02:00",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "https://play.grafana.org/alerting/1afz29v7z/edit",
            "fingerprint": "c6eadffa33fcdf37",
            "silenceURL": "https://play.grafana.org/alerting/silence/new",
            "dashboardURL": "",
            "panelURL": "",
            "values": {"B": 44.23943737541908, "C": 1},
        }
    ],
    "groupLabels": {},
    "commonLabels": {"team": "blue"},
    "externalURL": "https://play.grafana.org/",
    "version": "1",
    "groupKey": "{}:{}",
    "title": "[FIRING:1]  (blue)",
    "state": "alerting",
}
