"""Redaction: no secret comes out, of Outfeed's or other writers' rows."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from contextlib import closing
from string import ascii_letters, digits

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outfeed import config
from outfeed.cli import main
from outfeed.config import REDACT_KEYS, Settings
from outfeed.credentials import SHAPES
from outfeed.errors import EventConflict, InvalidEvent
from outfeed.events import make_event
from outfeed.history import read_item
from outfeed.http.app import create_app
from outfeed.log.store import reading
from outfeed.redaction import REDACTED, redact
from outfeed.store import event_log, rows
from outfeed.store.outbox import Outbox
from tests.http.visitors import bearer, tokens

ALNUM = ascii_letters + digits
FIRST = "k7Qz"  # in each generated secret, so that it differs from all other texts


class TestKeys:
    @pytest.mark.parametrize("key", [
        "password", "PASSWORD", "Password", "access_token", "Access-Token", "access.token", "accessToken", "API-KEY",
        "x-api-key", "db password", "seed-phrase", "set_cookie", "userPassword",
    ])  # fmt: skip
    @pytest.mark.parametrize("value", ["hunter2", "", ["a", 1], {"a": "b"}, []])
    def test_a_value_under_a_listed_name_is_hidden(self, key, value):
        assert redact({"a": [{key: value}]}) == {"a": [{key: REDACTED}]}

    @pytest.mark.parametrize("key", ["token_count", "tokens", "passwords", "secretary", "tokenizer", "key", "api", ""])
    def test_a_value_under_a_similar_name_is_not_hidden(self, key):
        assert redact({key: "hunter2"}) == {key: "hunter2"}

    @pytest.mark.parametrize("value", [0, 1.5, True, False, None])
    def test_numbers_booleans_and_null_are_not_hidden(self, value):
        assert redact({"token": value, "password": value}) == {"token": value, "password": value}

    def test_the_names_are_a_setting(self, monkeypatch):
        monkeypatch.setenv("OUTFEED_REDACT_KEYS", "pin, Card-Number")
        config.settings.cache_clear()

        found = redact({"pin": "1234", "card_number": "4111", "password": "x"})

        assert found == {"pin": REDACTED, "card_number": REDACTED, "password": "x"}

    def test_the_given_value_is_not_changed(self):
        given = {"a": [{"password": "x"}]}

        redact(given)

        assert given == {"a": [{"password": "x"}]}


JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PRIVATE_KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nq83v\n-----END RSA PRIVATE KEY-----"


class TestShapes:
    @pytest.mark.parametrize("secret", [
        JWT, PRIVATE_KEY, PRIVATE_KEY[:50], "Bearer abcdef123456", "bearer " + "a" * 20, "Basic dXNlcjpwYXNzdzByZA==",
        "AKIAIOSFODNN7EXAMPLE", "AIza" + "a" * 35, "ghp_" + "a1" * 18, "github_pat_" + "a1" * 20, "xoxb-123456789012",
        "sk_live_" + "a1" * 12, "sk-ant-api03-" + "a1" * 20, "outfeed_" + "a" * 43, "glpat-" + "a1" * 10,
        "ya29." + "a1" * 20, "npm_" + "a1" * 18,
    ])  # fmt: skip
    def test_a_well_known_credential_is_hidden_in_any_text(self, secret):
        for value in (secret, f"failed with {secret}", {"a": secret}, [secret], {secret: 1}, f"x={secret}"):
            assert secret not in json.dumps(redact(value), ensure_ascii=False).replace("\\n", "\n")

    def test_the_text_around_it_stays(self):
        assert redact(f"curl -H 'Authorization: {'Bearer abc123456'}' failed") == (
            f"curl -H 'Authorization: {REDACTED}' failed"
        )
        assert redact("postgres://me:hunter2@db/feed") == f"postgres://{REDACTED}@db/feed"

    @pytest.mark.parametrize("text", [
        "the bearer of bad news", "basic training", "task-123", "risk-averse people", "https://host/a?b=c@d",
        "0192f0c1-7e57-7a11-8b0c-5ec2e7a1d00d", "eyJ", "sha256:" + "a" * 64, "task_live_event", "it's: fine",
    ])  # fmt: skip
    def test_plain_text_stays(self, text):
        assert redact(text) == text

    @pytest.mark.parametrize("text", [
        '{"password": "hunter2"}', '{"a": {"secret": ["hunter2"]}}', '{"password": "hunter2",}',
        "{'password': 'hunter2'}", json.dumps(json.dumps({"password": "hunter2"})), '[1, {"token": "hunter2", ...',
    ])  # fmt: skip
    def test_a_secret_in_json_inside_a_text_is_hidden(self, text):
        assert "hunter2" not in redact(text)

    @pytest.mark.parametrize("text", [
        "eyJ" * 20_000, "eyJ." * 16_000, "\\" * 60_000, '"' * 60_000, "://" * 20_000,
        "-----BEGIN PRIVATE KEY----- " * 2000,
        '"a":"\'' * 12_000, "'a':\"" * 12_000, '\\"a\\":\\"' * 8000, "bearer " * 9000, "bearer " + "a" * 60_000,
        "{" * 60_000 + '":', "basic " * 10_000, "://a:" * 12_000, "123456789:" * 6000, "abc.MNO" * 9000,
        "hooks.slack.com/services/" * 2500, "whsec_" * 10_000, "xoxb.xox" * 8000, "sk-" * 20_000, ":" * 60_000,
        "1" * 60_000 + ":", "M" + "a" * 60_000 + ".",
    ], ids=lambda text: text[:12])  # fmt: skip
    def test_no_text_takes_long(self, text):
        began = time.process_time()

        redact(text)

        assert time.process_time() - began < 1


RANDOM = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V2w3X4y5Z6a7B8c9D0"
HEX = "0123456789abcdef" * 4
# The fewest characters that must follow a mark; other shapes use RANDOM.
ENDINGS = {
    "private key": "RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
    "age": "QQPQYRTX2XJ0GY7XK5Q8L0W9V3T4Z6",
    "JWT, signed cookie": JWT[3:],
    "basic": "dXNlcjpwYXNzdzByZA==",
    "user and password in a URL": "me:hunter2@host",
    "Airtable": HEX,
    "AWS": "IOSFODNN7EXAMPLE",
    "Azure client": RANDOM[:33],
    "Cloudflare": f"{HEX[:24]}-{HEX}",
    "Discord": f"{RANDOM[:6]}.{RANDOM[:27]}",
    "Google": RANDOM[:35],
    "Mailgun": HEX[:32],
    "Outfeed": RANDOM[:43],
    "SendGrid": f"{RANDOM[:22]}.{RANDOM[:43]}",
    "Slack": f"b-{RANDOM[:20]}",
    "Telegram": RANDOM[:35],
    "Twilio": HEX[:32],
}
BEGINNINGS = {
    "Airtable": f"pat{RANDOM[:14]}", "Azure client": "abc8", "Discord": f"M{RANDOM[:24]}", "Telegram": "123456789",
    "Terraform": RANDOM[:14], "Slack, Discord webhook": "https://host", "user and password in a URL": "https",
}  # fmt: skip
EXAMPLES = [
    pytest.param(BEGINNINGS.get(name, "") + mark + ENDINGS.get(name, RANDOM), id=f"{name} {mark}")
    for name, shape in SHAPES.items()
    for mark in shape.marks
]


def secret_part(secret):
    """Return the part that must be hidden.

    Of a URL, the scheme and host stay.
    """
    return "hunter2" if "hunter2" in secret else secret[-20:]


class TestEachShape:
    @pytest.mark.parametrize("secret", EXAMPLES)
    @pytest.mark.parametrize("hide", [
        lambda secret: secret, lambda secret: {secret: 1}, lambda secret: [f"x = {secret} failed"],
        lambda secret: json.dumps({"a": [secret]}), lambda secret: {"a": json.dumps(json.dumps([secret]))},
    ], ids=["value", "key", "in a text", "JSON in a text", "JSON in JSON in a text"])  # fmt: skip
    def test_a_credential_is_hidden_in_written_and_read_data(self, secret, hide):
        data = hide(secret)
        row = json.dumps({"id": "1", "event_type": "a.b", "source": "s", "data": data}).encode()

        event, encoded = make_event("a.b", "s", data=data, max_event_bytes=65_536)

        assert secret_part(secret) not in encoded
        assert secret_part(secret) not in repr(event.data)
        assert secret_part(secret) not in read_item(1, row, 0, 65_536).json.decode()
        assert secret_part(secret) not in repr(rows.event_of(("1", "a.b", "s", None, None, json.dumps(data), None)))

    def test_a_credential_is_hidden_among_plain_events_of_the_same_shape(self, database):
        secrets = [example.values[0] for example in EXAMPLES]
        for secret in secrets:
            raw_row(database, '{"a":"plain"}')
            raw_row(database, json.dumps({"a": secret}, separators=(",", ":")))

        items = Outbox(database, 65_536).read_after(0, 1000).items

        assert len(items) == 2 * len(secrets)
        assert all(
            secret_part(secret) not in item.json.decode() for item, secret in zip(items[1::2], secrets, strict=True)
        )

    @pytest.mark.parametrize("secret", EXAMPLES)
    def test_a_credential_is_hidden_in_the_source_and_refused_as_an_id(self, secret):
        row = json.dumps({"id": "1", "event_type": "a.b", "source": secret, "data": None}).encode()

        event, _ = make_event("a.b", secret, max_event_bytes=65_536)

        assert secret_part(secret) not in event.source
        assert secret_part(secret) not in read_item(1, row, 0, 65_536).json.decode()
        assert secret_part(secret) not in rows.event_of(("1", "a.b", secret, None, None, None, None)).source
        with pytest.raises(InvalidEvent, match="credential"):
            make_event("a.b", "s", id=secret, max_event_bytes=65_536)

    @pytest.mark.parametrize("text", [
        "task_done", "2024-01-15T10:30:00.123Z", "host:5432", "10:30:00", "agent_not_enough_sats_left_today",
        "0192f0c1-7e57-7a11-8b0c-5ec2e7a1d00d", "key-value", "xai-lab", "sha1:0123456789abcdef0123456789abcdef01234567",
        "hf_model", "SG.1", "SKU", "risk-free", "a.b.c.d", "patent pending. done", "key_0123", "1//2",
    ])  # fmt: skip
    def test_plain_text_that_resembles_a_credential_stays(self, text):
        assert redact({"a": text, text: [text]}) == {"a": text, text: [text]}


class TestWriting:
    def test_a_secret_in_data_and_fields_is_hidden_before_the_write(self, database):
        event_log.log_event("a.b", f"by {JWT}", "Bearer abc1234567", "AKIAIOSFODNN7EXAMPLE", {"password": "hunter2"})

        with closing(sqlite3.connect(database.path)) as raw:
            written = repr([*raw.execute("SELECT * FROM event_log"), *raw.execute("SELECT * FROM outbox")])
        assert not re.search("eyJ|abc1234567|AKIA|hunter2", written)

    def test_an_id_that_looks_like_a_credential_is_refused(self):
        with pytest.raises(InvalidEvent, match="credential"):
            make_event("a.b", "s", id=JWT, max_event_bytes=1000)

    def test_a_repeated_event_is_the_same_with_any_secret(self, database):
        first = event_log.log_event("a.b", "s", data={"token": "one"}, id="1")

        assert event_log.log_event("a.b", "s", data={"token": "two"}, id="1") == first
        with pytest.raises(EventConflict):
            event_log.log_event("a.b", "s", data={"token": "two", "n": 1}, id="1")


class TestReading:
    @pytest.mark.parametrize("data", [
        '{"pass\\u0077ord": "hunter2"}', '{"password":"hunter2","password":1}', '{"a":{"password":"hunter2"},"a":1}',
        '{"a" : {"pass\\u0077ord":"hunter2"}, "a" :1}', '{"url":"https:\\/\\/me:hunter2@host"}',
        '"{\\"password\\": \\"hunter2\\"}"', '{"password": "hunter2"',
        'say "password" : "hunter2"', "say 'token' : 'hunter2'", "'password'\u00a0:\u2003'hunter2'",
        json.dumps("https://" + "ü" * 190 + ":hunter2" + "ü" * 190 + "@host", ensure_ascii=False),
        "[" * 600 + '{"password":"hunter2"}' + "]" * 600, "[" * 5000 + '{"password":"hunter2"}' + "]" * 5000,
        "[" * 5000 + '{"password" : [{"a":"hunter2"}]}' + "]" * 5000, "[" * 5000 + '{"pass\\u0077ord":{"a":"hunter2"}}',
        '{"password":["hunter2"],"n":' + "1" * 5000 + "}", '{"n":' + "1" * 5000 + ',"a":{"password":{"b":"hunter2"}}}',
        '{"password":["hunter2"],}', '[{"password":["hunter2"]', '{"a":"{\\"password\\":{\\"b\\":\\"hunter2\\"},}"}',
        "[" * 5000 + '"Bearer hunter2", {"a": "{\\"password\\": \\"hunter2\\"}"}' + "]" * 5000,
    ])  # fmt: skip
    def test_odd_json_hides_nothing(self, database, data):
        raw_row(database, data)

        item = Outbox(database, 65_536).read_after(0, 10).items[0]

        assert b"hunter2" not in item.json
        assert "hunter2" not in repr(reading.list_events())

    def test_deeply_nested_json_keeps_values_that_are_not_secret(self):
        text = "[" * 5000 + '{"n":1,"password":["x"],"token":2,"a":"b"}' + "]" * 5000

        assert redact(text) == text.replace('["x"]', '"[redacted]"')

    def test_a_row_without_a_secret_is_sent_unchanged(self):
        raw = b'{"id":"1","event_type":"a.b","data":{"n":12345678901234567890123,"b":[1.0,"x"]}}'

        assert read_item(1, raw, 0, 65_536).json == raw

    def test_large_integers_stay_exact_beside_a_secret(self):
        raw = b'{"id":"1","event_type":"a.b","data":{"n":12345678901234567890123,"token":"x"}}'

        assert read_item(1, raw, 0, 65_536).json == raw.replace(b'"x"', b'"[redacted]"')


# --- every way out ----------------------------------------------------------------------------------------------------

bare_secrets = st.text(ALNUM, min_size=8, max_size=30).map(lambda text: FIRST + text)
spellings = st.sampled_from([str, str.upper, str.title, lambda name: name.replace("_", "-"), lambda name: f"my_{name}"])
secret_keys = st.builds(lambda name, spell: spell(name), st.sampled_from(REDACT_KEYS), spellings)
shapes = st.sampled_from([
    "Bearer {}{}", "authorization: bearer {}9{}", "eyJ{}.eyJ{}.x", "-----BEGIN PRIVATE KEY-----\n{}\n{}",
    "https://me:{}{}@host/", "sk_live_{}{}", "ghp_{0}{1}{0}", "outfeed_{0:x<43.43}", '{{"password": "{}{}"}}',
])  # fmt: skip
plain = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.floats(allow_nan=False, allow_infinity=False)
)


@st.composite
def hidden(draw):
    """A secret and the smallest data that holds it.

    The data has a telling name, or the secret a telling shape.
    """
    secret = draw(bare_secrets)
    if draw(st.booleans()):
        under = draw(st.sampled_from([secret, [secret], {"a": secret}, [[{"b": [secret]}]]]))
        return secret, {draw(secret_keys): under}
    other = draw(bare_secrets)
    return secret, draw(shapes).format(secret, other)


@st.composite
def nested(draw):
    """A secret somewhere in data of any shape."""
    secret, data = draw(hidden())
    for _ in range(draw(st.integers(0, 5))):
        key, beside = draw(st.text(max_size=10)), draw(plain)
        data = draw(st.sampled_from([[data], [beside, data], {key: data}, {"n": beside, f"{key}'": data}]))
    return secret, data


def raw_row(database, data):
    """Write a row with *data* as another program would."""
    with closing(sqlite3.connect(database.path)) as raw, raw:
        raw.execute(
            "INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES (hex(randomblob(8)),'a.b','s',?,?)",
            (data, "2024-01-15T10:00:00Z"),
        )


@pytest.fixture
def ways_out(database):
    """Return all outputs of each way out."""
    app = create_app(Settings(database=database.path))
    admin = bearer(app, tokens(database)["admin"])
    outbox = Outbox(database, 65_536)

    def outputs():
        yield b"".join(item.json for item in outbox.read_after(0, 1000).items).decode()
        yield repr(reading.list_events())
        yield repr([reading.get_event(event.id) for event in reading.list_events()])
        yield repr(reading.get_event_summary(60 * 24 * 366 * 100))
        for path in ("/api/events", "/api/feed?after=0", "/swarm/live", "/swarm/events"):
            answer = admin("GET", path)
            assert answer.status_code == 200
            yield answer.text
        for arguments in (["events", "--json"], ["events"]):
            done = CliRunner().invoke(main, arguments)
            assert done.exit_code == 0
            yield done.output

    yield outputs
    app.extensions["outfeed"].database.close()


@pytest.mark.parametrize("writer", ["ours", "theirs", "theirs, in ASCII"])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.data())
def test_no_generated_secret_comes_out_anywhere(database, ways_out, writer, data):
    secret, value = data.draw(nested())
    with closing(sqlite3.connect(database.path)) as raw, raw:
        raw.executescript("DELETE FROM event_log; DELETE FROM outbox;")
    if writer == "ours":
        event_log.log_event("a.b", "s", data=value)
    else:
        raw_row(database, json.dumps(value, ensure_ascii="ASCII" in writer))

    for answer in ways_out():
        assert secret not in answer
