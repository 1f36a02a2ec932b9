"""Settings: read once, all errors reported at once, secrets hidden."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from outfeed import config
from outfeed.config import Settings
from outfeed.config.remote import remote
from outfeed.errors import ConfigError

SECRET = "correct horse battery staple"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a .env file."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("OUTFEED_DATABASE")
    return folder


def test_without_any_variable_the_defaults_apply() -> None:
    settings = config.load()
    assert settings.database == Path("instance/outfeed.db")
    assert (settings.bind, settings.workers, settings.poll_interval) == ("127.0.0.1:8000", 1, 1.0)
    assert settings.base_url == "http://127.0.0.1:8000"


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"DATABASE": "/data/feed.db", "WORKERS": "3", "POLL_INTERVAL": "0.5", "BIND": "[::1]:80"}
    for name, value in values.items():
        monkeypatch.setenv(f"OUTFEED_{name}", value)
    settings = config.load()
    assert (settings.database, settings.workers, settings.poll_interval) == (Path("/data/feed.db"), 3, 0.5)
    assert settings.base_url == "http://[::1]:80"


def test_a_dotenv_file_is_read_and_the_environment_comes_before_it(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_folder / ".env").write_text("OUTFEED_WORKERS=3\nOUTFEED_MAX_CONNECTIONS=7\nOTHER=1\nOUTFEED_UNKNOWN=1\n")
    monkeypatch.setenv("OUTFEED_WORKERS", "2")
    assert (config.load().workers, config.load().max_connections) == (2, 7)


def test_invalid_lines_of_the_dotenv_file_are_reported_as_errors(empty_folder: Path) -> None:
    (empty_folder / ".env").write_text(
        "OUTFEED_WORKERS=3\nOUTFEED_REPLAY_DAYS: 7\nexport OUTFEED_POLL_INTERVAL=1\nx y\n"
    )
    with pytest.raises(ConfigError) as refused:
        config.load()
    assert str(refused.value).splitlines() == [".env: line 2 must be NAME=value", ".env: line 4 must be NAME=value"]


def test_an_unreadable_dotenv_file_is_reported(empty_folder: Path) -> None:
    (empty_folder / ".env").write_bytes(b"OUTFEED_WORKERS=3 # \xff")
    with pytest.raises(ConfigError, match=r"can't read \.env"):
        config.load()


def test_a_folder_is_refused_as_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTFEED_DATABASE", str(tmp_path))
    with pytest.raises(ConfigError, match="OUTFEED_DATABASE: must name a file"):
        config.load()


def test_all_bad_values_are_reported_at_once_with_name_and_value(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {
        "DATABASE": "  ",
        "BIND": "nowhere",
        "WORKERS": "0",
        "MAX_CONNECTIONS": "many",
        "MAX_EVENT_BYTES": "1",
        "POLL_INTERVAL": "0",
        "HEARTBEAT_SECS": "nan",
        "LOG_LEVEL": "loud",
        "URL": "ftp://example.org",
    }
    for name, value in bad.items():
        monkeypatch.setenv(f"OUTFEED_{name}", value)
    with pytest.raises(ConfigError) as refused:
        config.load()
    lines = str(refused.value).splitlines()
    assert [line.partition(":")[0] for line in sorted(lines)] == sorted(f"OUTFEED_{name}" for name in bad)
    for line in lines:
        assert bad[line.partition(":")[0].removeprefix("OUTFEED_")] in line


@pytest.mark.parametrize("name", config.Settings.model_fields)
def test_no_error_shows_a_regular_expression(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("\x01", "nan", "-1", "a b://c", "[", "x" * 9, ",=,"):
        monkeypatch.setenv("OUTFEED_" + name.upper(), value)
        said = ""
        try:
            config.load()
        except ConfigError as error:
            said = str(error)
        assert [sign for sign in ("pattern", "\\d", "^", "$") if sign in said] == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("8000", "must be ADDRESS:PORT, like 127.0.0.1:8000"),
        (":8000", "must be ADDRESS:PORT, like 127.0.0.1:8000"),
        ("127.0.0.1", "must be ADDRESS:PORT, like 127.0.0.1:8000"),
        ("http://127.0.0.1:8000", "must be ADDRESS:PORT, like 127.0.0.1:8000"),
        ("::1:8000", "must be ADDRESS:PORT, like 127.0.0.1:8000"),
        ("127.0.0.1:99999", "must be ADDRESS:PORT with a port from 1 to 65535"),
        ("127.0.0.1:0", "must be ADDRESS:PORT with a port from 1 to 65535"),
        ("[::1::]:8000", "At most one '::' permitted in '::1::'"),
    ],
)
def test_the_error_of_a_bad_address_to_listen_on_gives_the_reason(
    value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTFEED_BIND", value)
    with pytest.raises(ConfigError) as refused:
        config.load()
    assert str(refused.value) == f"OUTFEED_BIND: {reason} (got {value!r})"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("RETENTION_DAYS", "x", "must be a valid number (got 'x')"),
        ("WORKERS", "1.5", "must be a valid integer (got '1.5')"),
        ("SECRET_KEY", "short", "must have at least 16 characters (got a secret)"),
    ],
)
def test_a_value_of_another_kind_is_explained_in_plain_words(
    name: str, value: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"OUTFEED_{name}", value)
    with pytest.raises(ConfigError) as refused:
        config.load()
    assert str(refused.value) == f"OUTFEED_{name}: {problem}"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("~/feed.db", "{home}/feed.db"),
        ("sqlite:///feed.db", "feed.db"),
        ("sqlite:////var/feed.db", "/var/feed.db"),
        ("sqlite:///~/feed.db", "{home}/feed.db"),
    ],
)
def test_a_path_may_begin_with_the_home_folder_or_be_an_sqlite_url(
    value: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OUTFEED_DATABASE", value)
    assert config.load().database == Path(path.format(home=tmp_path))


@pytest.mark.parametrize(
    "value", ["sqlite://feed.db", "sqlite:feed.db", "postgresql:///feed", "file:feed.db", "sqlite:///a?x=1"]
)
def test_another_url_is_refused_as_database(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTFEED_DATABASE", value)
    with pytest.raises(ConfigError, match="OUTFEED_DATABASE: must be a path, or sqlite:///PATH"):
        config.load()


def test_the_path_of_a_secret_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(SECRET)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OUTFEED_SECRET_KEY_FILE", "~/key")
    assert config.load().secret_key is not None
    monkeypatch.setenv("OUTFEED_SECRET_KEY_FILE", "~nobody-like-this/key")
    with pytest.raises(ConfigError, match="OUTFEED_SECRET_KEY_FILE: can't read"):
        config.load()


@pytest.mark.parametrize(
    ("value", "url", "prefix"),
    [
        ("https://Feed.example", "https://feed.example", ""),
        ("https://feed.example:8443/", "https://feed.example:8443", ""),
        ("http://[::1]:80/feed/", "http://[::1]:80/feed", "/feed"),
        ("https://example.com/a/b", "https://example.com/a/b", "/a/b"),
    ],
)
def test_the_public_address_may_have_a_path(value: str, url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTFEED_PUBLIC_URL", value)
    assert (config.load().public_url, config.load().prefix) == (url, prefix)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("feed.example", "must be an address like https://feed.example"),
        ("ftp://feed.example", "must be an address like https://feed.example"),
        ("https://user:key@feed.example", "must be an address like https://example.com or"),
        ("https://feed.example/?x=1", "must be an address like https://example.com or"),
        ("https://feed.example/a//b", "must be an address like https://example.com or"),
        ("https://feed.example/é", "must be an address like https://example.com or"),
        ("https://feed.example/api/feed", "must not start its path with /api, which Outfeed uses itself"),
        ("https://feed.example:99999", "Port out of range"),
    ],
)
def test_the_error_of_a_bad_public_address_gives_the_reason(
    value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTFEED_PUBLIC_URL", value)
    with pytest.raises(ConfigError, match=f"^OUTFEED_PUBLIC_URL: {reason}"):
        config.load()


def test_a_secret_is_in_no_error_and_in_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTFEED_SECRET_KEY", "tooshort")
    with pytest.raises(ConfigError, match="OUTFEED_SECRET_KEY") as refused:
        config.load()
    assert "tooshort" not in str(refused.value)
    monkeypatch.setenv("OUTFEED_SECRET_KEY", SECRET)
    monkeypatch.setenv("OUTFEED_TOKEN", SECRET)
    settings = config.load()
    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == SECRET


def test_a_setting_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    monkeypatch.setenv("OUTFEED_SECRET_KEY_FILE", str(file))
    settings = config.load()
    assert settings.secret_key is not None
    assert settings.secret_key.get_secret_value() == SECRET


def test_an_unreadable_secret_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTFEED_TOKEN_FILE", str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match=r"OUTFEED_TOKEN_FILE.*missing"):
        config.load()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setenv("OUTFEED_TOKEN_FILE", str(tmp_path / "binary"))
    with pytest.raises(ConfigError, match="OUTFEED_TOKEN_FILE"):
        config.load()


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("OUTFEED_WORKER", "OUTFEED_WORKERS"), ("OUTFEED_DATABSE", "OUTFEED_DATABASE"), ("OUTFEED_QQQQQQ", None)],
)
def test_an_unknown_name_is_a_warning_with_a_suggestion(
    name: str, suggestion: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(name, SECRET)
    with caplog.at_level(logging.WARNING):
        config.load()
    (record,) = caplog.records
    assert name in record.getMessage()
    assert (f"did_you_mean={suggestion}" in record.getMessage()) == (suggestion is not None)
    assert SECRET not in record.getMessage()


def test_settings_are_read_once_and_can_not_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = config.settings()
    monkeypatch.setenv("OUTFEED_WORKERS", "5")
    assert config.settings() is before
    with pytest.raises(ValueError, match="frozen"):
        before.workers = 7  # type: ignore[misc]


def test_every_known_name_sets_something(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in config.known_names():
        monkeypatch.setenv(name, "x")
    assert config.unknown_settings() == {}
    assert "OUTFEED_WORKERS" in os.environ


class TestTokenOfTheEnvironment:
    """A .env file in the current folder may be another user's.

    It must not direct the environment's token to its address.
    """

    @pytest.mark.parametrize("name", ["OUTFEED_URL=http://127.0.0.1:9", "OUTFEED_BIND=feed.example:80"])
    def test_the_token_is_not_sent_to_an_address_of_the_dotenv_file(
        self, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        (empty_folder / ".env").write_text(name)
        monkeypatch.setenv("OUTFEED_TOKEN", SECRET)
        with pytest.raises(ConfigError, match=r"^OUTFEED_TOKEN: is not sent to http://.*--url$") as problem:
            remote()
        assert SECRET not in str(problem.value)
        assert remote("https://feed.example/") == ("https://feed.example", SECRET)
        monkeypatch.delenv("OUTFEED_TOKEN")
        config.settings.cache_clear()
        assert remote()[1] is None

    def test_a_token_of_a_secret_file_is_not_sent_there_either(
        self, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (empty_folder / ".env").write_text("OUTFEED_URL=http://feed.example")
        (empty_folder / "token").write_text(SECRET)
        monkeypatch.setenv("OUTFEED_TOKEN_FILE", str(empty_folder / "token"))
        with pytest.raises(ConfigError, match="OUTFEED_TOKEN"):
            remote()

    @pytest.mark.parametrize(
        ("file", "environment", "url"),
        [
            ("OUTFEED_URL=http://feed.example\nOUTFEED_TOKEN={}", {}, "http://feed.example"),
            ("OUTFEED_TOKEN={}", {"OUTFEED_URL": "http://feed.example"}, "http://feed.example"),
            ("", {"OUTFEED_URL": "http://feed.example/", "OUTFEED_TOKEN": SECRET}, "http://feed.example"),
            ("OUTFEED_BIND=127.0.0.1:9", {"OUTFEED_TOKEN": SECRET}, "http://127.0.0.1:9"),
            ("", {"OUTFEED_TOKEN": SECRET}, "http://127.0.0.1:8000"),
        ],
    )
    def test_the_token_is_sent_to_other_addresses_of_the_settings(
        self, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, file: str, environment: dict[str, str], url: str
    ) -> None:
        (empty_folder / ".env").write_text(file.format(f"'{SECRET}'"))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert remote() == (url, SECRET)
