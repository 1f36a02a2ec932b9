"""The README names everything that others rely on."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from outfeed import config, metrics
from outfeed.cli import main
from outfeed.feed import frames
from outfeed.http.app import create_app
from outfeed.http.metrics import declared_metrics

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CODE = "\n".join(path.read_text() for path in sorted((ROOT / "app").rglob("*.py")))


@pytest.mark.parametrize("name", sorted(config.Settings.model_fields))
def test_every_setting_is_listed(name: str) -> None:
    assert f"| `OUTFEED_{name.upper()}` |" in README


def test_no_setting_is_listed_that_does_not_exist() -> None:
    listed = set(re.findall(r"\| `(OUTFEED_[A-Z_]+)` \|", README))
    assert listed == {f"OUTFEED_{name.upper()}" for name in config.Settings.model_fields}


@pytest.mark.parametrize(
    "name", ["database", "bind", "workers", "max_connections", "max_event_bytes", "heartbeat_secs"]
)
def test_defaults_are_the_ones_listed(name: str) -> None:
    default = config.Settings.model_fields[name].default
    assert f"| `OUTFEED_{name.upper()}` | `{default}` |" in README


def commands() -> dict[str, click.Command]:
    context = click.Context(main)
    found = {name: main.get_command(context, name) for name in main.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None and not command.hidden}


@pytest.mark.parametrize("name", commands())
def test_every_command_and_its_options_are_listed(name: str) -> None:
    command = commands()[name]
    assert f"`outfeed {name}" in README
    if isinstance(command, click.Group):
        assert all(f"`{each}`" in README for each in command.commands)
    options = [parameter.opts[0] for parameter in command.params if parameter.opts[0].startswith("--")]
    assert [option for option in options if option not in README] == []


@pytest.mark.parametrize(
    "code",
    sorted(value for name, value in vars(frames).items() if name.isupper() and isinstance(value, int) and value > 999),
)
def test_every_close_code_is_listed(code: int) -> None:
    assert f"| {code} |" in README


@pytest.mark.parametrize("code", sorted(set(re.findall(r'InvalidRequest\(\s*"(\w+)"', CODE))))
def test_every_error_code_of_the_socket_is_listed(code: str) -> None:
    if code not in ("invalid_event", "unknown_field", "missing_field"):  # of HTTP, where the problem explains itself
        assert f"`{code}`" in README


@pytest.mark.parametrize(("name", "metric"), (metrics.WORKER | declared_metrics()).items())
def test_every_metric_is_listed_with_its_kind_and_labels(name: str, metric: metrics.Metric) -> None:
    labels = [*(["worker"] if name in metrics.WORKER else []), *metric.labels]
    total = "_total" if metric.kind == "counter" else ""
    shown = ", ".join(f"`{label}`" for label in labels) or "none"
    assert f"| `{metrics.PREFIX}{name}{total}` | {metric.kind} | {shown} |" in README


def test_no_metric_is_listed_that_does_not_exist() -> None:
    listed = {name.removesuffix("_total") for name in re.findall(r"^\| `outfeed_(\w+)` \|", README, re.MULTILINE)}
    assert listed == set(metrics.WORKER | declared_metrics())


@pytest.mark.parametrize("type_", sorted(set(re.findall(r'message\("(\w+)"', CODE)) | {"event", "error"}))
def test_every_frame_is_listed(type_: str) -> None:
    assert f'"type": "{type_}"' in README


def test_every_route_is_listed(database: object) -> None:
    app = create_app(config.load())
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?\w+>", "<id>", rule.rule)
        assert rule.endpoint in ("assets.asked_again", "assets.kept", "pages.home") or f"{path}" in README, path
