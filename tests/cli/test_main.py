"""All commands: help, exit codes, errors on one line, and few imports."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from outfeed.cli import commands, main
from outfeed.store.event_log import log_event
from tests import forked

ROOT = Path(__file__).parents[2]
LOG = ("log", "task.created", "--source", "tests")


def run(*arguments, **variables):
    """Run `outfeed` in a process of its own, without a terminal."""
    return forked.run([*arguments], os.environ | variables, timeout=60)


def paths():
    """Return every command, as the words that call it."""
    for name in commands():
        command = main.get_command(click.Context(main), name)
        yield from ([name, sub] for sub in command.commands) if isinstance(command, click.Group) else [[name]]


@pytest.mark.parametrize("path", list(paths()), ids=" ".join)
def test_the_help_of_every_command_has_an_example(outfeed, path):
    result = outfeed(*path, "--help")

    assert result.exit_code == 0
    assert f"Example:\n    {'OUTFEED_' if 'OUTFEED_' in result.output else 'outfeed ' + path[0]}" in result.output
    assert " ".join(path) in result.output.split("Example:")[1]


def test_help_lists_the_commands_in_order(outfeed):
    commands = outfeed("--help").output.split("Commands:")[1]

    names = [line.split()[0] for line in commands.strip().splitlines()]
    assert names == [
        *(
            "serve",
            "config",
            "tail",
            "help",
            "log",
            "events",
            "event",
            "type",
            "upgrade",
            "release",
            "status",
            "prune",
            "backup",
            "restore",
        ),
        *(
            "doctor",
            "user",
            "token",
            "consumer",
            "watch",
            "webhook",
            "alert",
            "target",
            "address",
            "mapping",
            "connect",
            "mcp",
            "simulate",
            "edge",
            "verify",
        ),
    ]
    assert "..." not in commands


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_characters_that_an_encoding_lacks_are_replaced(database, encoding):
    log_event("task.created", "tests", data={"description": "数据 é"})

    command = [sys.executable, "-m", "outfeed", "events"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, capture_output=True, encoding=encoding, timeout=60
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "New task: ?? é" in done.stdout


def test_the_version_is_that_of_the_package(outfeed):
    assert outfeed("--version").output == f"outfeed {importlib.metadata.version('outfeed')}\n"


@pytest.mark.parametrize(
    ("typed", "meant"), [(("evnts",), "'events'"), (("restor",), "'restore'"), (("token", "creat"), "'create'")]
)
def test_a_misspelt_command_gets_a_suggestion(outfeed, typed, meant):
    misused = outfeed(*typed)

    assert misused.exit_code == 2
    assert "Did you mean" in misused.stderr
    assert meant in misused.stderr


def test_quiet_prints_only_data_warnings_and_errors(outfeed, database, monkeypatch):
    assert outfeed("--quiet", *LOG).output == ""
    assert outfeed("-q", "events", "--type", "nothing.here").output == ""
    created = outfeed("-q", "token", "create", "ci", "--scopes", "read")
    assert (created.stdout.count("\n"), created.stderr) == (1, "")
    assert outfeed("-q", "token", "list").output.startswith("Name")
    assert outfeed("-q", "token", "revoke", "other").stderr.startswith("Error: ")
    monkeypatch.setenv("OUTFEED_WORKRES", "2")
    assert outfeed("-q", "token", "revoke", "ci").stderr.startswith("Warning: ")


def test_the_shell_completes_commands_options_and_choices():
    def completed(*words):
        completion = ShellComplete(main, {}, "outfeed", "_OUTFEED_COMPLETE")
        return {found.value for found in completion.get_completions(list(words[:-1]), words[-1])}

    assert completed("ev") == {"event", "events"}
    assert completed("token", "ro") == {"rotate"}
    assert completed("tail", "--ta") == {"--task-id"}
    assert completed("user", "set-role", "ann", "oper") == {"operator"}


def test_an_error_contains_no_control_characters(outfeed, database):
    result = outfeed("webhook", "pause", "a\x1b[2Jb\nDone.")

    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert not set(result.stderr) & {"\x1b"}


class TestExitCodes:
    def test_success_exits_0(self, database):
        done = run(*LOG)

        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Logged task.created as ")

    @pytest.mark.parametrize(
        "arguments",
        [
            LOG,
            ("events",),
            ("status",),
            ("prune", "--older-than-days", "1"),
            ("token", "list"),
            ("token", "create", "ci", "--scopes", "read"),
        ],
        ids=" ".join,
    )
    def test_a_missing_database_exits_1_with_one_line(self, arguments, tmp_path):
        failed = run(*arguments)

        assert (failed.returncode, failed.stdout) == (1, "")
        assert failed.stderr.startswith(f"Error: no database at {tmp_path}/outfeed.db")
        assert failed.stderr.count("\n") == 1
        assert not (tmp_path / "outfeed.db").exists()

    def test_an_invalid_setting_exits_1(self, database):
        failed = run("status", OUTFEED_WORKERS="many")

        assert failed.returncode == 1
        assert failed.stderr.startswith("Error: OUTFEED_WORKERS: ")

    def test_a_file_that_is_no_database_exits_1(self, tmp_path):
        (tmp_path / "outfeed.db").write_text("no database" * 1000)

        failed = run("status")

        assert failed.returncode == 1
        assert failed.stderr.startswith("Error: ")
        assert "Traceback" not in failed.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            ("nothing",),
            ("log",),
            ("log", "task.created"),
            ("log", "task.created", "--source", "x", "--data", "{"),
            ("events", "--limit", "0"),
            ("events", "surplus"),
            ("prune",),
            ("prune", "--older-than-days", "-1"),
            ("prune", "--older-than-days", "soon"),
            ("tail", "--last", "1001"),
            ("tail", "--epoch", "e"),
            ("tail", "--url", "feed.example"),
            ("tail", "--url", "http://[::1"),
            ("tail", "--url", "http://feed.example:port"),
            ("token", "create", "ci"),
            ("token", "create", "ci", "--scopes", "root"),
            ("token", "create", "a\nb", "--scopes", "read"),
            ("token", "revoke"),
        ],
        ids=" ".join,
    )
    def test_a_usage_error_exits_2_without_a_prompt(self, outfeed, database, arguments):
        misused = outfeed(*arguments)

        assert misused.exit_code == 2
        assert "Usage: outfeed" in misused.stderr
        assert misused.stdout == ""

    def test_a_closed_output_exits_0(self, database):
        for _ in range(100):
            log_event("task.created", "tests", data={"description": "x" * 2000})
        command = [sys.executable, "-m", "outfeed", "events", "--json"]

        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""

        assert process.returncode == 0


@pytest.mark.parametrize("arguments", [LOG, ("events",), ("token", "list"), ("upgrade",)], ids=" ".join)
def test_a_command_imports_no_web_framework(database, arguments):
    code = f"""
import sys
from outfeed.cli import main
main({list(arguments)!r}, standalone_mode=False)
heavy = {{"flask", "werkzeug", "gunicorn", "websockets", "apscheduler"}} & set(sys.modules)
assert not heavy, heavy
"""
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True, timeout=60
    )

    assert loaded.returncode == 0, loaded.stderr


def test_a_misspelt_setting_is_a_warning_with_every_command(outfeed, database, monkeypatch):
    monkeypatch.setenv("OUTFEED_POL_INTERVAL", "2")
    done = outfeed("status", "--json")
    assert done.exit_code == 0
    assert done.stderr == "Warning: Unknown setting OUTFEED_POL_INTERVAL. Did you mean OUTFEED_POLL_INTERVAL?\n"


def test_a_misspelt_setting_in_the_env_file_is_a_warning_too(outfeed, database, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("OUTFEED_WORKRES=2\n")
    assert "OUTFEED_WORKERS?" in outfeed("status").stderr
