"""Messages under a topic, signed webhooks, and bad input."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import io
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from standardwebhooks.webhooks import Webhook

from outfeed import clock, list_events
from outfeed.access.store import account
from outfeed.store.database import Database
from tests.app_fixtures import Api
from tests.gateways import samples
from tests.gateways.test_addresses import added

TEXT, FORM, JSON = "text/plain", "application/x-www-form-urlencoded", "application/json"


class TestBodies:
    @pytest.mark.parametrize(
        ("media_type", "body", "data"),
        [
            (TEXT, "backup done\n", {"message": "backup done"}),
            (TEXT, "a=1", {"message": "a=1"}),
            (FORM, "backup done", {"message": "backup done"}),  # `curl -d`
            (FORM, "took 5s, x=1", {"message": "took 5s, x=1"}),
            (FORM, "a=1&b=x%20y+z&c=", {"a": "1", "b": "x y z", "c": ""}),
            (FORM, "a=1&a=2", {"a": "2"}),
            (FORM, "Füße=1", {"Füße": "1"}),
            (JSON, '{"message": "hi", "n": [1, null]}', {"message": "hi", "n": [1, None]}),
            (JSON, "[1, 2]", [1, 2]),
            (JSON, '"text"', "text"),
            ("application/octet-stream", "backup done", {"message": "backup done"}),
            ("", "{not json}", {"message": "{not json}"}),
            (TEXT, "two\nlines \x1b[2J", {"message": "two\nlines \x1b[2J"}),
        ],
    )
    def test_a_body_becomes_the_data_of_one_event(self, api: Api, media_type: str, body: str, data: Any) -> None:
        answer = api.client.post("/in/backups", data=body.encode(), headers={**api.headers, "Content-Type": media_type})

        assert answer.status_code == 201
        (event,) = list_events("backups.*")
        assert (event.event_type, event.source, event.data) == ("backups.message", "tests", data)
        assert [receipt["id"] for receipt in answer.json] == [event.id]

    def test_a_multipart_form_and_a_gzipped_text_are_read(self, api: Api) -> None:
        api.post("/in/a.form", data={"a": ["1", "2"]}, content_type="multipart/form-data")
        headers = {**api.headers, "Content-Encoding": "gzip", "Content-Type": TEXT}
        api.client.post("/in/a.text", data=gzip.compress(b"packed"), headers=headers)

        assert [event.data for event in list_events("a.*")] == [{"message": "packed"}, {"a": "2"}]

    def test_secrets_in_a_message_are_redacted(self, api: Api) -> None:
        api.post("/in/backups", data="key AKIAIOSFODNN7EXAMPLE", content_type=TEXT)
        assert list_events("backups.*")[0].data == {"message": "key [redacted]"}


class TestTopics:
    @pytest.mark.parametrize(
        ("topic", "event_type"), [("backups", "backups.message"), ("backup.done", "backup.done"), ("a1_b.2", "a1_b.2")]
    )
    def test_a_topic_is_a_type_or_its_first_word(self, api: Api, topic: str, event_type: str) -> None:
        assert api.post(f"/in/{topic}", data="x").status_code == 201
        assert [event.event_type for event in list_events()] == [event_type]

    @pytest.mark.parametrize("topic", ["Backups", "a..b", "a-b", ".a", "a.", "1a", "ä", "x" * 57, "%00", "a%0a", "*"])
    def test_an_invalid_topic_is_rejected_with_the_rule(self, api: Api, topic: str) -> None:
        answer = api.post(f"/in/{topic}", data="x")
        assert answer.status_code == 422
        assert answer.json["detail"].startswith("topic: must be lower-case words joined by dots, like backups")

    @pytest.mark.parametrize(
        "topic", ["access", "access.signed_in", "system.pruned", "system.restored", "system.backed_up"]
    )
    def test_no_topic_makes_an_audit_event(self, api: Api, topic: str) -> None:
        assert api.post(f"/in/{topic}", data="x").status_code == 403
        assert list_events() == []

    def test_a_token_writes_only_its_types(self, api: Api, database: Database) -> None:
        secret = account.create_token(database, "tasks", ["write"], types=["task.*"])
        headers = {"Authorization": f"Bearer {secret}"}
        assert api.client.post("/in/task.created", data="x", headers=headers).status_code == 201
        assert api.client.post("/in/backups", data="x", headers=headers).status_code == 403


class TestHeaders:
    def test_title_and_level_become_fields_and_color_the_row(self, api: Api, outfeed: Any) -> None:
        headers = {**api.headers, "Title": "Nächtlich".encode().decode("latin-1"), "Level": "ERROR"}
        api.client.post("/in/backups", data="disk full", headers=headers)
        api.client.post("/in/backups", json={"message": "m", "level": "info"}, headers=headers)

        assert [event.data for event in list_events("backups.*")] == [
            {"message": "m", "level": "error", "title": "Nächtlich"},
            {"message": "disk full", "title": "Nächtlich", "level": "error"},
        ]
        assert "❌ disk full" in outfeed("events").output

    def test_a_repeated_idempotency_key_writes_once_and_other_content_conflicts(self, api: Api) -> None:
        headers = {**api.headers, "Idempotency-Key": "night-1"}
        first, again = (api.client.post("/in/backups", data="done", headers=headers) for _ in range(2))
        other = api.client.post("/in/backups", data="failed", headers=headers)

        assert (first.status_code, again.status_code, other.status_code) == (201, 200, 409)
        assert first.json == again.json
        assert [event.id for event in list_events("backups.*")] == ["night-1"]


BAD = {
    "an empty body": ({"data": ""}, 422, "the body is empty"),
    "white space": ({"data": " \n", "content_type": TEXT}, 422, "the body is empty"),
    "not UTF-8": ({"data": b"ab\xff", "content_type": TEXT}, 400, "not UTF-8 text: byte 2 is invalid"),
    "not UTF-8 in a form": ({"data": b"a=%FF", "content_type": FORM}, 400, "not a form"),
    "too many fields": (
        {"data": "&".join(f"a{n}=1" for n in range(201)), "content_type": FORM},
        400,
        "at most 200 fields",
    ),
    "half JSON": ({"data": '{"a":', "content_type": JSON}, 400, "the body is not JSON"),
    "NaN": ({"data": '{"a": NaN}', "content_type": JSON}, 422, "data: is not JSON-serialisable"),
    "a lone surrogate": ({"data": r'{"a": "\ud800"}', "content_type": JSON}, 422, "data: is not JSON-serialisable"),
    "a huge number": ({"data": "1" * 5000, "content_type": JSON}, 400, "the body is not JSON"),
    "deep JSON": ({"data": "[" * 100_000, "content_type": JSON}, 422, "nested too deeply"),
    "too large a text": ({"data": "x" * 70_000, "content_type": TEXT}, 422, "data: is 70,014 bytes as JSON"),
    "too large a body": ({"data": "x" * (8 * 2**20 + 1), "content_type": TEXT}, 413, ""),
    "a gzip bomb": (
        {"data": gzip.compress(b"x" * (9 * 2**20)), "headers": {"Content-Encoding": "gzip"}},
        413,
        "after decompression",
    ),
    "brotli": ({"data": "x", "headers": {"Content-Encoding": "br"}}, 415, "Content-Encoding must be gzip"),
    "a file in a form": (
        {"data": {"file": (io.BytesIO(b"x"), "x.txt")}, "content_type": "multipart/form-data"},
        415,
        "no files",
    ),
    "an unknown level": (
        {"data": "x", "headers": {"Level": "fatal"}},
        422,
        "Level: must be info, warning or error (got 'fatal')",
    ),
    "a title of a list": ({"json": [1], "headers": {"Title": "t"}}, 422, "Title and Level: need a text"),
    "a long id": (
        {"data": "x", "headers": {"Idempotency-Key": "k" * 121}},
        422,
        "id: must have at most 120 characters",
    ),
    "a secret as id": (
        {"data": "x", "headers": {"Idempotency-Key": "AKIAIOSFODNN7EXAMPLE"}},
        422,
        "looks like a credential",
    ),
    "an unknown mapping": (
        {"json": {}, "query_string": "as=nothing"},
        422,
        "as: there is no mapping 'nothing'; there are alertmanager",
    ),
    "an unknown parameter": ({"data": "x", "query_string": "topic=a"}, 422, "topic"),
    "a webhook without a list": ({"json": {}, "query_string": "as=alertmanager"}, 422, "alerts: must be a list"),
    "a webhook without alerts": ({"json": {"alerts": []}, "query_string": "as=alertmanager"}, 422, "alerts: is empty"),
    "a webhook that is text": ({"data": "x", "content_type": TEXT, "query_string": "as=alertmanager"}, 400, "not JSON"),
    "a form without payload": (
        {"data": "a=1", "content_type": FORM, "query_string": "as=github"},
        400,
        "no field `payload`",
    ),
    "too many alerts": (
        {"json": samples.alertmanager(*[samples.ALERT] * 1001), "query_string": "as=alertmanager"},
        422,
        "at most 1,000 events",
    ),
    "one bad alert": (
        {
            "json": samples.alertmanager(samples.ALERT, {**samples.ALERT, "status": "x" * 70}),
            "query_string": "as=alertmanager",
        },
        422,
        "event 1: event_type: must have at most 64 characters",
    ),
}


@pytest.mark.parametrize(("request_", "status", "problem"), BAD.values(), ids=BAD)
def test_bad_input_gets_the_reason_and_no_event_is_stored(
    api: Api, request_: dict[str, Any], status: int, problem: str
) -> None:
    more = {**request_, "headers": {**api.headers, **request_.get("headers", {})}}
    answer = api.client.post("/in/backups", **more)

    assert (answer.status_code, problem in answer.json["detail"]) == (status, True), answer.text
    assert list_events() == []


class TestWebhooks:
    def test_a_signed_github_delivery_is_written_once(self, api: Api, outfeed: Any) -> None:
        path, secret = added(outfeed, "repo", "--as", "github")
        body = json.dumps(samples.GITHUB_ISSUE).encode()
        headers = {
            "X-GitHub-Event": "issues",
            "X-GitHub-Delivery": "72d3162e-cc78",
            "X-Hub-Signature-256": "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex(),
        }
        statuses = [api.client.post(path, data=body, headers=headers, content_type=JSON).status_code for _ in range(2)]
        assert statuses == [201, 200]
        assert [event.id for event in list_events("github.*")] == ["repo:72d3162e-cc78"]

    def test_githubs_form_is_read_and_its_signature_covers_the_form(self, api: Api, outfeed: Any) -> None:
        path, secret = added(outfeed, "repo", "--as", "github")
        body = urlencode({"payload": json.dumps(samples.GITHUB_PING)}).encode()
        signature = "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex()
        headers = {"X-GitHub-Event": "ping", "X-GitHub-Delivery": "1", "X-Hub-Signature-256": signature}
        assert api.client.post(path, data=body, headers=headers, content_type=FORM).status_code == 201
        assert [event.event_type for event in list_events("github.*")] == ["github.ping"]

    @pytest.mark.parametrize("headers", [{}, {"X-Hub-Signature-256": "sha256=00"}])
    def test_an_unsigned_delivery_is_rejected_before_it_is_read(
        self, api: Api, outfeed: Any, headers: dict[str, str]
    ) -> None:
        path, _ = added(outfeed, "repo", "--as", "github")
        answer = api.client.post(path, data="not even JSON", headers=headers, content_type=JSON)
        assert (answer.status_code, answer.json["code"]) == (401, "invalid_signature")
        assert "x-hub-signature-256" in answer.json["detail"]
        assert list_events("github.*") == []

    def test_a_repeated_alert_group_adds_only_the_new_alerts(self, api: Api) -> None:
        changed = {**samples.ALERT, "annotations": {"summary": "other words"}}
        resolved = {**samples.ALERT, "status": "resolved"}
        groups = [
            samples.alertmanager(samples.ALERT),
            samples.alertmanager(changed),
            samples.alertmanager(changed, resolved),
        ]

        statuses = [api.post("/in/alert?as=alertmanager", json=group).status_code for group in groups]

        assert statuses == [201, 200, 201]
        found = list_events("alert.*")
        assert [event.event_type for event in found] == ["alert.resolved", "alert.firing"]
        assert found[1].data["message"] == "Probe failure: server.example.org"

    def test_the_standard_webhooks_library_is_accepted_now_and_not_later(self, api: Api, outfeed: Any) -> None:
        path, secret = added(outfeed, "billing", "--as", "standard", "--topic", "billing", "--source", "shop")
        body = json.dumps({"type": "invoice.paid", "timestamp": clock.timestamp(), "data": {"amount": 5}})

        def post(age_secs: float) -> Any:
            moment = clock.now().timestamp() - age_secs
            signed = Webhook(secret).sign("msg_1", clock.datetime.fromtimestamp(moment, clock.UTC), body)
            headers = {"webhook-id": "msg_1", "webhook-timestamp": str(int(moment)), "webhook-signature": signed}
            return api.client.post(path, data=body, headers=headers, content_type=JSON)

        assert post(0).status_code == 201
        late = post(600)
        assert (late.status_code, late.json["code"]) == (401, "invalid_signature")
        assert "webhook-timestamp: is 60" in late.json["detail"]
        assert [(event.id, event.source) for event in list_events("billing.*")] == [("billing:msg_1", "shop")]

    def test_a_grafana_contact_point_with_a_secret_must_sign(self, api: Api, outfeed: Any) -> None:
        path, secret = added(outfeed, "grafana", "--as", "grafana")
        body = json.dumps(samples.GRAFANA).encode()
        signature = hmac.digest(secret.encode(), body, hashlib.sha256).hex()
        assert api.client.post(path, data=body, content_type=JSON).status_code == 401
        signed = api.client.post(
            path, data=body, content_type=JSON, headers={"X-Grafana-Alerting-Signature": signature}
        )
        assert signed.status_code == 201

    def test_outfeeds_own_webhook_is_a_sender(self, api: Api, outfeed: Any) -> None:
        from outfeed.webhooks.message import Message

        path, secret = added(outfeed, "other", "--as", "standard", "--topic", "other")
        message = Message.of_test("ops")
        answer = api.client.post(path, data=message.body, headers=message.signed(secret), content_type=JSON)
        assert answer.status_code == 201
        assert list_events("other.*")[0].event_type == "other.webhook.test"
        assert base64.b64decode(secret.removeprefix("whsec_"))
