"""`outfeed config`: each setting once, with its source and no secret."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from outfeed import config
from outfeed.config.description import MASKED


def settings(output: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(output)}


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_setting_has_its_value_default_source_and_help(outfeed, in_empty_folder, monkeypatch):
    (in_empty_folder / ".env").write_text("OUTFEED_WORKERS=2\nOUTFEED_BIND=127.0.0.1:1\n")
    (in_empty_folder / "key").write_text("never-to-be-shown-anywhere")
    monkeypatch.setenv("OUTFEED_BIND", "127.0.0.1:9000")
    monkeypatch.setenv("OUTFEED_SECRET_KEY_FILE", str(in_empty_folder / "key"))
    monkeypatch.setenv("OUTFEED_RETENTION_DAYS_BY_TYPE", "tool.*=7,task.failed=365")
    output = outfeed("config", "--json").output
    found = settings(output)
    assert list(found) == [f"OUTFEED_{name.upper()}" for name in config.Settings.model_fields]
    assert found["OUTFEED_WORKERS"] == {
        "name": "OUTFEED_WORKERS", "value": "2", "default": "1", "source": ".env",
        "help": "Server processes. Limits are per worker.",
    }  # fmt: skip
    assert (found["OUTFEED_BIND"]["value"], found["OUTFEED_BIND"]["source"]) == ("127.0.0.1:9000", "environment")
    assert (found["OUTFEED_SECRET_KEY"]["value"], found["OUTFEED_SECRET_KEY"]["source"]) == (MASKED, "file")
    assert found["OUTFEED_RETENTION_DAYS_BY_TYPE"]["value"] == "tool.*=7,task.failed=365"
    assert found["OUTFEED_LOG_LEVEL"]["source"] == "default"
    assert "never-to-be-shown" not in output + outfeed("config").output


def test_text_output_has_short_lines_and_a_sentence(outfeed, in_empty_folder, monkeypatch):
    monkeypatch.setenv("OUTFEED_POLL_INTERVAL", "3")
    output = outfeed("config").output
    assert "\nOUTFEED_WORKERS=1\n    Server processes. Limits are per worker.\n" in output
    assert "\nOUTFEED_POLL_INTERVAL=3.0\n" in output
    assert " From environment; default: 1.0.\n" in output
    monkeypatch.delenv("OUTFEED_POLL_INTERVAL")
    config.settings.cache_clear()
    output = outfeed("config").output
    assert re.search(r"\n1 of \d+ settings changed from the default\.\n$", output), (
        "the database's path, which the tests set"
    )


def test_invalid_values_are_reported_instead(outfeed, in_empty_folder, monkeypatch):
    monkeypatch.setenv("OUTFEED_WORKERS", "none")
    result = outfeed("config")
    assert result.exit_code == 1
    assert "OUTFEED_WORKERS" in result.output
