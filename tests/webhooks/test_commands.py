"""The commands of webhook: add, list, skip, test, pause, resume, remove."""

import base64
import json
import re
import socket
import threading
from datetime import timedelta

import pytest
from freezegun import freeze_time

from outfeed import clock, config
from outfeed.store import checkpoint
from outfeed.store.outbox import Outbox
from outfeed.webhooks import store as webhook
from outfeed.webhooks.delivery_log.store import DeliveryLog
from outfeed.webhooks.message import Message
from outfeed.webhooks.target import Answer
from tests.receiver import SECRET, Receiver, Reply


@pytest.fixture(autouse=True)
def loopback_allowed(monkeypatch):
    monkeypatch.setenv("OUTFEED_WEBHOOK_ALLOW", "127.0.0.1")
    config.settings.cache_clear()


URL = "http://127.0.0.1:9/hook"


class TestAdd:
    def test_stdout_has_only_the_secret(self, outfeed, database):
        result = outfeed("webhook", "add", "ops", URL)

        assert re.fullmatch(r"whsec_[A-Za-z0-9+/=]{44}\n", result.stdout)
        assert result.stderr == "Webhook ops is active. Its secret is not shown again.\n"
        assert webhook.find(database, "ops").secret == result.stdout.strip()

    def test_pruning_keeps_rows_for_a_new_webhook(self, outfeed, database):
        outfeed("webhook", "add", "ops", URL)

        assert [(one.name, one.is_protected) for one in checkpoint.list_checkpoints(database)] == [
            ("webhook:ops", True)
        ]

    def test_a_given_secret_is_read_and_not_shown(self, outfeed, database, tmp_path):
        file = tmp_path / "secret"
        file.write_text(SECRET + "\n")

        result = outfeed("webhook", "add", "ops", URL, "--secret-file", file, "--types", "task.*, x.y", "--batch", "50")

        assert result.output == "Webhook ops is active.\n"
        found = webhook.find(database, "ops")
        assert (found.secret, found.types, found.batch) == (SECRET, ("task.*", "x.y"), 50)

    @pytest.mark.parametrize(
        "arguments",
        [
            ["no good", URL], ["", URL], ["webhook:x", URL], ["n" * 56, URL],
            ["ops", "ftp://127.0.0.1/"], ["ops", "127.0.0.1"], ["ops", "http://u:p@127.0.0.1/"],
            ["ops", URL, "--types", "*"], ["ops", URL, "--types", "a b"], ["ops", URL, "--batch", "0"],
            ["ops", URL, "--batch", "1001"], ["ops", URL, "--secret-file", "/dev/null"],
            ["ops", URL, "--secret-file", "/no/such/file"],
        ],
    )  # fmt: skip
    def test_invalid_arguments_are_usage_errors(self, outfeed, database, arguments):
        assert outfeed("webhook", "add", *arguments).exit_code == 2
        assert webhook.list_webhooks(database) == []

    def test_a_bad_secret_is_not_shown(self, outfeed, database, tmp_path):
        file = tmp_path / "secret"
        file.write_text(base64.b64encode(b"too short").decode())

        assert file.read_text() not in outfeed("webhook", "add", "ops", URL, "--secret-file", file).output

    @pytest.mark.parametrize(
        "url", ["http://127.0.0.2/", "http://localhost:80/x", "https://[::1]/", "http://10.0.0.1/"]
    )
    def test_a_private_target_needs_the_setting(self, outfeed, database, monkeypatch, url):
        monkeypatch.setenv("OUTFEED_WEBHOOK_ALLOW", "")
        config.settings.cache_clear()

        result = outfeed("webhook", "add", "ops", url)

        assert result.exit_code == 1
        assert "OUTFEED_WEBHOOK_ALLOW" in result.stderr
        assert webhook.list_webhooks(database) == []

    def test_a_taken_name_fails_and_keeps_the_first_webhook(self, outfeed, database):
        secret = outfeed("webhook", "add", "ops", URL).stdout.strip()

        result = outfeed("webhook", "add", "ops", URL + "2")

        assert result.exit_code == 1
        assert "there is already a webhook named 'ops'" in result.stderr
        assert (webhook.find(database, "ops").url, webhook.find(database, "ops").secret) == (URL, secret)


class TestList:
    def test_list_shows_the_state_but_no_secret(self, outfeed, database):
        secret = outfeed("webhook", "add", "ops", URL, "--types", "task.*").stdout.strip()
        outfeed("log", "task.created", "--source", "s")

        people, machines = outfeed("webhook", "list").output, outfeed("webhook", "list", "--json").output

        assert re.search(rf"ops +active +0 +1 +task\.\* +{URL}", people)
        assert people.endswith("There is 1 webhook.\n")
        (facts,) = json.loads(machines)
        assert {"name": "ops", "state": "active", "lag": 1, "types": ["task.*"], "url": URL, "failures": 0}.items() <= (
            facts.items()
        )
        assert secret not in people + machines
        assert "secret" not in facts

    def test_an_empty_list_is_reported(self, outfeed, database):
        assert outfeed("webhook", "list").output == "There are 0 webhooks.\n"
        assert json.loads(outfeed("webhook", "list", "--json").output) == []


class TestSkip:
    @pytest.fixture
    def blocked(self, outfeed, database):
        """A webhook that accepted the first event and answers 400 to the second."""
        outfeed("webhook", "add", "ops", URL, "--types", "a.*")
        for event_type in ("a.b", "x.y", "a.c", "a.d"):
            outfeed("log", event_type, "--source", "s", "--id", f"of-{event_type}")
        lease = webhook.claim(database, "ops")
        lease.acknowledge(2, events=1, status=200, batch_end=None)
        lease.failed(400, "the target answered 400")

    def test_list_names_the_blocking_event(self, outfeed, blocked):
        people, (facts,) = outfeed("webhook", "list"), json.loads(outfeed("webhook", "list", "--json").output)

        assert "seq 4 a.c of-a.c, status 400" in people.stdout
        assert "`outfeed webhook skip ops` skips seq 4 a.c of-a.c." in people.stderr
        assert facts["blocked_by"] == [{"seq": 4, "id": "of-a.c", "event_type": "a.c"}]
        assert facts["last_status"] == 400

    def test_skip_skips_only_the_blocking_event(self, outfeed, blocked, database):
        result = outfeed("webhook", "skip", "ops")

        assert result.output == "Webhook ops skipped seq 4 a.c of-a.c.\n"
        found = webhook.find(database, "ops")
        assert (found.seq, found.failing_since, found.last_error) == (4, None, None)
        assert outfeed("webhook", "skip", "ops").exit_code == 1, "the next event has not failed"
        assert webhook.find(database, "ops").seq == 4

    def test_a_paused_webhook_stays_paused_and_names_the_command(self, outfeed, blocked, database):
        webhook.pause(database, "ops")

        result = outfeed("webhook", "skip", "ops")

        assert result.stderr == "It is paused. To continue: outfeed webhook resume ops\n"
        assert webhook.find(database, "ops").state == "paused"
        assert outfeed("webhook", "resume", "ops").output == "Webhook ops resumes after seq 4, 3 events behind.\n"


class TestTest:
    @pytest.mark.parametrize("status", [204, 500])
    def test_the_command_posts_a_signed_message(self, outfeed, database, status):
        with Receiver(behave=lambda _: Reply(status, {"content-length": "0"} if status == 204 else {})) as receiver:
            receiver.secret = outfeed("webhook", "add", "ops", receiver.url).stdout.strip()

            result = outfeed("webhook", "test", "ops")

        assert [(post.body["type"], post.body["data"]) for post in receiver.posts] == [
            ("webhook.test", {"webhook": "ops"})
        ]
        assert receiver.problems == []
        assert result.exit_code == (0 if status == 204 else 1)
        assert str(status) in result.output
        assert webhook.find(database, "ops").delivered == 0

    @pytest.mark.parametrize("answer", [b"\x1b[2J nonsense\r\n\r\n", b"HTTP/1.1 500 \x1b[2Jno\r\n\x1b[2J: x\r\n\r\n"])
    def test_escape_sequences_of_an_answer_do_not_reach_the_terminal(self, outfeed, database, answer):
        def answer_once():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        with socket.create_server(("127.0.0.1", 0)) as listener:
            outfeed("webhook", "add", "ops", f"http://127.0.0.1:{listener.getsockname()[1]}/")
            thread = threading.Thread(target=answer_once)
            thread.start()
            result = outfeed("webhook", "test", "ops")
            thread.join()

        assert result.exit_code == 1
        assert "webhook ops failed the test" in result.stderr
        assert "\x1b" not in result.output


class TestEdit:
    @pytest.fixture
    def ops(self, outfeed, database):
        outfeed("webhook", "add", "ops", URL, "--types", "a.*")
        outfeed("log", "a.b", "--source", "s")
        return webhook.find(database, "ops")

    @pytest.mark.parametrize(
        ("options", "changed"),
        [
            (("--url", "https://127.0.0.1:9/other"), {"url": "https://127.0.0.1:9/other"}),
            (("--types", "task.*, x.y"), {"types": ("task.*", "x.y")}),
            (("--types", ""), {"types": ()}),
            (("--on-rejection", "skip"), {"on_rejection": webhook.OnRejection.SKIP}),
        ],
    )
    def test_edit_changes_only_the_given_attributes(self, outfeed, database, ops, options, changed):
        result = outfeed("webhook", "edit", "ops", *options)

        assert result.output == "Changed webhook ops.\n"
        assert webhook.find(database, "ops") == ops._replace(**changed, revision=ops.revision + 1, lag=ops.lag + 1)

    @pytest.mark.parametrize(
        "options",
        [(), ("--url", "ftp://127.0.0.1/"), ("--types", "a b"), ("--on-rejection", "drop"), ("--on-rejection", "")],
    )
    def test_invalid_arguments_are_usage_errors(self, outfeed, database, ops, options):
        assert outfeed("webhook", "edit", "ops", *options).exit_code == 2
        assert webhook.find(database, "ops") == ops

    def test_a_private_target_needs_the_setting(self, outfeed, database, ops):
        result = outfeed("webhook", "edit", "ops", "--url", "http://127.0.0.2/")

        assert result.exit_code == 1
        assert "OUTFEED_WEBHOOK_ALLOW" in result.stderr
        assert webhook.find(database, "ops") == ops

    def test_a_paused_webhook_stays_paused_and_names_the_command(self, outfeed, database, ops):
        webhook.pause(database, "ops")

        result = outfeed("webhook", "edit", "ops", "--types", "")

        assert result.stderr == "It is paused. To continue: outfeed webhook resume ops\n"
        assert webhook.find(database, "ops").state == "paused"

    @pytest.mark.parametrize("options", [("--url", URL), ("--types", "")])
    def test_an_unknown_name_fails(self, outfeed, database, options):
        result = outfeed("webhook", "edit", "nobody", *options)

        assert result.exit_code == 1
        assert "webhook 'nobody' not found" in result.stderr

    def test_add_accepts_on_rejection_and_list_shows_it(self, outfeed, database):
        outfeed("webhook", "add", "ops", URL, "--on-rejection", "skip")
        outfeed("webhook", "add", "other", URL)

        first, second = json.loads(outfeed("webhook", "list", "--json").stdout)
        assert (first["on_rejection"], second["on_rejection"]) == ("skip", "retry")
        assert re.search(rf"ops .*{URL} +skip", outfeed("webhook", "list").stdout)


class TestRotate:
    def test_stdout_has_the_new_secret_and_no_list_shows_a_secret(self, outfeed, database):
        old = outfeed("webhook", "add", "ops", URL).stdout.strip()

        result = outfeed("webhook", "rotate", "ops")

        new = result.stdout.strip()
        assert re.fullmatch(r"whsec_[A-Za-z0-9+/=]{44}", new)
        assert result.stderr == (
            "Webhook ops has a new secret. The old one stays valid for 24 hours. The new secret is not shown again.\n"
        )
        assert webhook.find(database, "ops").secrets == (new, old)
        shown = outfeed("webhook", "list").output + outfeed("webhook", "list", "--json").output
        assert new not in shown
        assert old not in shown

    def test_a_given_secret_is_read_and_not_shown(self, outfeed, database, tmp_path):
        file = tmp_path / "secret"
        file.write_text(SECRET)
        outfeed("webhook", "add", "ops", URL)

        result = outfeed("webhook", "rotate", "ops", "--secret-file", file)

        assert result.output == "Webhook ops has a new secret. The old one stays valid for 24 hours.\n"
        assert webhook.find(database, "ops").secret == SECRET

    def test_the_old_secret_expires_after_a_day(self, outfeed, database):
        old = outfeed("webhook", "add", "ops", URL).stdout.strip()
        new = outfeed("webhook", "rotate", "ops").stdout.strip()
        found = webhook.find(database, "ops")

        with freeze_time(clock.now() + timedelta(hours=23.9)):
            assert found.secrets == (new, old)
        with freeze_time(clock.now() + timedelta(hours=24.1)):
            assert found.secrets == (new,)

    def test_a_second_rotation_ends_the_first_secret(self, outfeed, database):
        outfeed("webhook", "add", "ops", URL)
        second, third = (outfeed("webhook", "rotate", "ops").stdout.strip() for _ in range(2))

        assert webhook.find(database, "ops").secrets == (third, second)

    @pytest.mark.parametrize("which", ["old", "new"])
    def test_a_test_message_carries_both_signatures(self, outfeed, database, which):
        with Receiver() as receiver:
            old = outfeed("webhook", "add", "ops", receiver.url).stdout.strip()
            new = outfeed("webhook", "rotate", "ops").stdout.strip()
            receiver.secret = {"old": old, "new": new}[which]
            assert outfeed("webhook", "test", "ops").exit_code == 0

        assert receiver.problems == []
        assert len(receiver.posts) == 1


class TestLog:
    @pytest.fixture
    def logged(self, outfeed, database):
        """A webhook that rejected one event and then a batch of two."""
        outfeed("webhook", "add", "ops", URL)
        for n in range(3):
            outfeed("log", "a.b", "--source", "s", "--id", f"of-{n}")
        outbox = Outbox(database, 65536)
        page = outbox.read_after(1, 10)
        log = DeliveryLog(database)
        for items, answer in (
            (page.items[:1], Answer(422, body=b"no\n such\x1b[2J field")),
            (page.items[1:], Answer(None, "no answer within 20 s")),
        ):
            log.add("ops", page.window.epoch, items, Message.of_batch(page.window.epoch, items, {}), answer, 1.234)
        log.write()

    def test_log_shows_each_post_and_its_answer(self, outfeed, logged):
        result = outfeed("webhook", "log", "ops")

        assert re.search(r"1 +\S+ +2 +1 +422 +1,234 ms +no such\\x1b\[2J field", result.stdout)
        assert re.search(r"3-4 +2 +no answer within 20 s +1,234 ms", result.stdout)
        assert result.stdout.endswith("There are 2 posts.\n")

    def test_json_contains_the_bodies(self, outfeed, logged):
        first, second = json.loads(outfeed("webhook", "log", "ops", "--json").stdout)

        assert (first["status"], first["answer"], first["millis"]) == (422, "no\n such\x1b[2J field", 1234)
        assert [event["id"] for event in json.loads(second["request"])["data"]] == ["of-1", "of-2"]
        assert (second["status"], second["error"]) == (None, "no answer within 20 s")

    def test_an_empty_list_is_reported(self, outfeed, database):
        outfeed("webhook", "add", "ops", URL)

        assert outfeed("webhook", "log", "ops").output == "There are 0 posts.\n"
        assert json.loads(outfeed("webhook", "log", "ops", "--json").output) == []


class TestOtherCommands:
    def test_pause_resume_remove(self, outfeed, database):
        outfeed("webhook", "add", "ops", URL)

        assert outfeed("webhook", "pause", "ops").output == "Webhook ops is paused.\n"
        assert webhook.versions(database) == {}
        outfeed("log", "a.b", "--source", "s")
        assert outfeed("webhook", "resume", "ops").output == "Webhook ops resumes after seq 1, 3 events behind.\n"
        assert list(webhook.versions(database)) == ["ops"]
        assert outfeed("webhook", "remove", "ops").output == "Removed webhook ops.\n"
        assert webhook.list_webhooks(database) == []
        assert checkpoint.list_checkpoints(database) == []

    @pytest.mark.parametrize("command", ["test", "pause", "resume", "skip", "log", "rotate", "remove"])
    def test_an_unknown_name_fails(self, outfeed, database, command):
        result = outfeed("webhook", command, "nobody")

        assert result.exit_code == 1
        assert "webhook 'nobody' not found" in result.stderr
