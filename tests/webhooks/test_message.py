"""Messages and their signatures, which a receiver can verify."""

import base64
import json

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from outfeed.display import Display
from outfeed.history import read_item
from outfeed.webhooks.message import Message, check_secret, new_secret

EVENT = {"id": "x", "event_type": "a.b", "source": "s", "timestamp": "2024-01-15T10:30:00.000Z", "data": {"ä": "✓"}}


def item(seq, **fields):
    return read_item(seq, json.dumps(EVENT | fields, ensure_ascii=False).encode(), 0, 65536)


class TestTheSignature:
    @pytest.mark.parametrize(
        "message",
        [
            Message.of_event("e1", item(61), {}),
            Message.of_event("e1", read_item(62, b"\xff not json", 0, 65536), {}),
            Message.of_event("e1", read_item(63, b"{}", 0, 65536), {}),
            Message.of_event("e1", read_item(64, b' { "id": 1}', 0, 65536), {}),
            Message.of_batch("e1", [item(1), item(5)], {}),
            Message.of_test("ops"),
        ],
        ids=["event", "not JSON", "an empty object", "spaces", "batch", "test"],
    )
    def test_another_implementation_verifies_the_signature(self, message):
        secret = new_secret()

        assert Webhook(secret).verify(message.body, message.signed(secret)) == json.loads(message.body)

    def test_another_body_secret_id_or_time_is_rejected(self):
        secret, message = new_secret(), Message.of_event("e1", item(61), {})
        headers = message.signed(secret)
        for body, changed, key in [
            (message.body + b" ", {}, secret),
            (message.body, {"webhook-id": "e1:62"}, secret),
            (message.body, {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}, secret),
            (message.body, {}, new_secret()),
        ]:
            with pytest.raises(WebhookVerificationError):
                Webhook(key).verify(body, headers | changed)

    def test_each_of_two_secrets_verifies_and_a_third_does_not(self):
        new, old, message = new_secret(), new_secret(), Message.of_event("e1", item(61), {})

        headers = message.signed(new, old)

        for secret in (new, old):
            assert Webhook(secret).verify(message.body, headers) == json.loads(message.body)
        with pytest.raises(WebhookVerificationError):
            Webhook(new_secret()).verify(message.body, headers)
        assert [each[:3] for each in headers["webhook-signature"].split(" ")] == ["v1,", "v1,"]


class TestTheBody:
    def test_a_message_has_the_event_as_in_the_feed(self):
        message = Message.of_event("e1", item(61), {})

        assert message.id == "e1:61"
        assert json.loads(message.body) == {
            "type": "a.b",
            "timestamp": "2024-01-15T10:30:00.000Z",
            "message": "a.b ä=✓",
            "data": {"seq": 61} | EVENT,
        }

    def test_the_message_is_the_sentence_of_the_events_display_after_redaction(self):
        displays = {"a.b": Display("⚡", "Paid by {source}: {data|ä}, {password}")}
        message = Message.of_event("e1", item(61, data={"ä": "✓", "password": "hunter2"}), displays)

        assert json.loads(message.body)["message"] == "⚡ Paid by s: ✓, [redacted]"

    def test_an_item_without_fields_has_a_message_too(self):
        message = Message.of_event("e1", read_item(63, b"{}", 0, 65536), {})

        assert json.loads(message.body)["message"]

    def test_a_batch_is_a_list_with_the_id_of_its_last_event(self):
        message = Message.of_batch("e1", [item(1, id="p"), item(5, id="q")], {})

        assert message.id == "e1:5"
        body = json.loads(message.body)
        assert body["type"] == "events"
        assert [(event["seq"], event["id"]) for event in body["data"]] == [(1, "p"), (5, "q")]
        assert body["messages"] == ["a.b ä=✓", "a.b ä=✓"]


class TestSecrets:
    def test_a_new_secret_has_256_random_bits_and_is_valid(self):
        secret = new_secret()

        assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
        assert check_secret(secret) == secret != new_secret()

    @pytest.mark.parametrize("size", [24, 32, 64])
    def test_a_given_secret_may_lack_the_prefix(self, size):
        raw = base64.b64encode(b"s" * size).decode()

        assert check_secret(f" {raw}\n") == check_secret(f"whsec_{raw}") == f"whsec_{raw}"

    @pytest.mark.parametrize("text", ["", "hunter2", "ÿ" * 40, "A" * 31, base64.b64encode(b"s" * 65).decode()])
    def test_an_invalid_secret_is_rejected_and_not_shown(self, text):
        with pytest.raises(ValueError, match="24 to 64 bytes in base64") as problem:
            check_secret(text)
        assert not text or text not in str(problem.value)
