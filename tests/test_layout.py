"""Layout: the allowed imports between the parts of the package.

Some things may also be in one place only.
"""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests import forked, package_copy

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "app" / "outfeed"

FEATURES = {
    "access", "alerts", "consumers", "edge", "gateways", "log", "swarm", "types", "upkeep", "verify", "watch",
    "webhooks",
}  # fmt: skip
BASE = {"config", "errors", "clock", "process", "text", "log_message", "nesting", "manual"}
EVENT = {"credentials", "display", "events", "history", "metrics", "principal", "redaction"}
CORE = {"feed", "store", "client", "jobs"}
# From the lowest level up. A part imports only from lower levels, and parts of one level do not import each other.
LEVELS = (
    BASE,
    EVENT,
    CORE,
    {"feature", "log_handler"},
    {"cli", "http"},
    FEATURES,
    {"features", "__init__", "__main__"},
)
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}
# Imports on one level, or upwards, and the reason of each.
ARROWS = {
    "config -> errors": "bad settings are errors",
    "config -> clock": "",
    "config -> log_message": "",
    "history -> events": "an item of the outbox holds an event",
    "history -> redaction": "and is redacted",
    "redaction -> credentials": "the table of shapes",
    "events -> redaction": "a written event is redacted",
    "display -> events": "an event reads as its type's display says",
    "display -> principal": "the audit's types are Outfeed's own",
    "http -> cli": "`outfeed serve` is a command",
    "edge -> access": "an edge checks requests as the origin does, with the grants that the origin wrote",
    "alerts -> log": "a rule's filter is in the query language of the log",
    "alerts -> webhooks": "a notice goes over the webhooks' checked addresses, and may be signed as they are",
    "log -> upkeep": "`outfeed events import` reads an archive; imported inside the command",
}

# Features that need a feature: they are removed with it.
BUILT_ON = {"access": {"edge"}, "log": {"alerts"}, "webhooks": {"alerts"}}

WEB_LIBRARIES = re.compile(r"(flask|werkzeug|jinja2|wtforms)(_|\.|$)")
CLOCKS = re.compile(
    r"time\.(time|monotonic|perf_counter|process_time|thread_time)(_ns)?"
    r"|time\.(localtime|gmtime|ctime|strftime|asctime|clock_gettime(_ns)?)"
    r"|datetime\.datetime\.(now|utcnow|today)|datetime\.date\.today"
)
PRINTS = re.compile(r"click\.(echo|secho)")
ENVIRONMENT = re.compile(r"os\.(environb?|getenvb?|putenv|unsetenv)(\.|$)")
MARKUP_FROM_TEXT = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\|\s*safe\b|autoescape\s+false")


def part_of(file: Path) -> str:
    """Return the part of a *file* relative to the package.

    It is the file's folder in the package, or its own name.
    """
    return file.parts[0].removesuffix(".py")


def problems(file: Path, source: str) -> list[str]:
    """Return the breaches of rules in *source*, one a line.

    *file* is relative to the package.
    """
    tree = ast.parse(source)
    names = dict(_bound_names(file, tree))
    found = [*_arrow_problems(file, tree), *_library_problems(file, tree), *_sql_problems(file, tree)]
    found += _place_problems(file, tree, names)
    return sorted({f"outfeed/{file}:{line}: {problem}" for line, problem in found})


def _imports(file: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) for each import.

    Imports inside functions and for types count, too. `from a import b` is a.b.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(file, node)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _base(file: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = ["outfeed", *file.parts[:-1]]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def _bound_names(file: Path, tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name.split(".")[0], alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{_base(file, node)}.{alias.name}") for alias in node.names)


def _arrow_problems(file: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    part = part_of(file)
    if part not in LEVEL_OF:
        yield 1, f"{part} is no part of the package; give it its place in LEVELS"
        return
    for line, name in _imports(file, tree):
        package, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if package != "outfeed" or target == part:
            continue
        if target not in LEVEL_OF or target.startswith("__"):
            if "commands" not in file.name:  # commands may use the public names
                yield line, f"{part} imports outfeed itself; import {target or 'the name'} from the part that has it"
        elif LEVEL_OF[target] >= LEVEL_OF[part] and f"{part} -> {target}" not in ARROWS:
            yield line, f"{part} must not import {target}"


def _library_problems(file: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    room = part_of(file)
    for line, name in _imports(file, tree):
        if name.split(".")[0] == "sqlite3" and room != "store":
            yield line, f"only store imports sqlite3, not {room}"
        if name.split(".")[0] == "redis" and room != "edge":
            yield line, f"only edge imports redis, not {room}"
        if WEB_LIBRARIES.match(name) and room not in {"http", "cli", "feature", *FEATURES}:
            yield line, f"{name} belongs to http, not {room}"


SQL = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE \w+ SET|DELETE FROM|WITH RECURSIVE|CREATE (TABLE|INDEX|TRIGGER))\b")


def _sql_problems(file: Path, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield SQL outside of stores.

    SQL belongs in the store, in a feature's `store`, and in upkeep, which works on all tables.
    """
    if part_of(file) in ("store", "upkeep") or "store" in (*file.parts, file.stem):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value):
            yield node.lineno, f"SQL belongs to a store, not {file}"


def _place_problems(file: Path, tree: ast.Module, names: dict[str, str]) -> Iterator[tuple[int, str]]:
    uses = [
        (node.lineno, _dotted(node, names)) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)
    ]
    for line, name in [*uses, *_imports(file, tree)]:
        if CLOCKS.fullmatch(name) and file != Path("clock.py"):
            yield line, f"{name} reads a clock; only clock.py does"
        if ENVIRONMENT.match(name) and file != Path("config/environment.py"):
            yield line, f"{name} is the environment; only config/environment.py reads it"
        if PRINTS.fullmatch(name) and file != Path("cli/show.py"):
            yield line, f"{name} prints as it is; cli/show.py has a function that escapes control characters"


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """Return the full name of an expression like `a.b.c`, or "".

    The module's imports are resolved.
    """
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value, names)
        return f"{base}.{node.attr}" if base else ""
    return ""


def modules() -> list[Path]:
    return sorted(file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py"))


class TestModules:
    @pytest.mark.parametrize("file", modules(), ids=str)
    def test_a_module_keeps_the_rules(self, file):
        assert problems(file, (PACKAGE / file).read_text("utf-8")) == []

    def test_no_text_becomes_markup(self):
        files = [file for folder in ("static", "templates") for file in (PACKAGE / folder).rglob("*") if file.is_file()]
        texts = {file: file.read_text("utf-8") for file in files if file.suffix in (".js", ".html", ".svg")}
        assert [file for file, text in texts.items() if MARKUP_FROM_TEXT.search(text)] == []

    def test_logging_an_event_loads_no_web_and_no_scheduler(self):
        heavy = {"flask", "werkzeug", "wsproto", "apscheduler", "gunicorn", "yoyo", "click", "rich"}
        code = "import sys, outfeed; outfeed.log_event; print(*sys.modules)"
        loaded = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
        assert "outfeed.store.event_log" in loaded
        assert heavy & set(loaded) == set()

    def test_without_an_engine_nothing_of_edges_is_loaded(self):
        code = (
            "import sys\nfrom outfeed import config\nfrom outfeed.http.app import create_app\n"
            "from outfeed.http.server import serve\nserve.prepare_database(config.load())\n"
            "app = create_app(config.load())\napp.test_client().get('/healthz')\nprint(*sys.modules)"
        )
        loaded = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
        assert "outfeed.access.auth" in loaded
        found = {name for name in loaded if name.split(".")[0] == "redis" or name.startswith("outfeed.edge")}
        assert found == {"outfeed.edge", "outfeed.edge.feature"}

    def test_every_library_is_declared(self):
        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg")
        extras = [config["options.extras_require"][name] for name in ("apprise", "edge", "mcp", "otel")]
        lines = "\n".join([config["options"]["install_requires"], *extras]).split("\n")
        declared = {_normal(line) for line in lines if line.strip(" \n#")}
        provided = declared | {_normal(line) for name in declared for line in _requirements(name)}
        owners = importlib.metadata.packages_distributions()
        libraries = {
            name.split(".")[0]
            for file in modules()
            for _, name in _imports(file, ast.parse((PACKAGE / file).read_text("utf-8")))
            if name.split(".")[0] not in {"outfeed", *sys.stdlib_module_names}
        }
        undeclared = {name for name in libraries if not {_normal(owner) for owner in owners.get(name, [])} & provided}
        assert undeclared == set()


class TestPackage:
    def test_no_module_imports_itself_indirectly(self):
        try:
            TopologicalSorter(import_graph()).prepare()
        except CycleError as error:
            pytest.fail(f"a circle: {' -> '.join(error.args[1])}")

    def test_no_two_public_classes_have_one_name(self):
        names = Counter(
            node.name
            for file in modules()
            for node in ast.parse((PACKAGE / file).read_text("utf-8")).body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        )
        assert [name for name, count in names.items() if count > 1] == []

    @pytest.mark.parametrize("feature", sorted(FEATURES))
    def test_every_other_module_imports_without_a_feature(self, feature, tmp_path):
        copy = tmp_path / "outfeed"
        shutil.copytree(PACKAGE, copy)
        gone = {feature} | BUILT_ON.get(feature, set())
        for each in gone:
            shutil.rmtree(copy / each)
        root = copy / "features.py"
        lines = root.read_text("utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not any(f"{each.capitalize()}Feature" in line for each in gone)]
        assert len(kept) == len(lines) - 2 * len(gone), "one line imports a feature, one registers it"
        root.write_text("".join(kept), "utf-8")

        done = forked.run([str(copy)], os.environ, timeout=60, command=package_copy.import_all)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == [str(len(list(copy.rglob("*.py")))), str(tmp_path)]


def test_every_module_that_a_text_names_exists():
    named = re.compile(r"(?<![\w./-])((?:[a-z_]+/)+[a-z_]+\.py)\b")
    missing = []
    for file in [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.js"), *(ROOT / "migrations").glob("*.sql")]:
        for name in named.findall(file.read_text("utf-8")):
            if not any((root / name).exists() for root in (PACKAGE, ROOT, ROOT / "app")):
                missing.append(f"{file.relative_to(ROOT)}: {name}")
    assert missing == []


def dotted(file: Path) -> str:
    """Return the dotted name of the module at *file*.

    *file* is relative to the package.
    """
    return ".".join(("outfeed", *file.with_suffix("").parts)).removesuffix(".__init__")


def import_graph() -> dict[str, set[str]]:
    """Return the imported modules of each module.

    Imports inside functions and for types count, too.
    """
    known = {dotted(file) for file in modules()}

    def module_of(name: str) -> str:
        while name not in known:
            name = name.rpartition(".")[0]
        return name

    graph = {}
    for file in modules():
        tree = ast.parse((PACKAGE / file).read_text("utf-8"))
        names = [name for _, name in _imports(file, tree) if name.split(".")[0] == "outfeed"]
        graph[dotted(file)] = {module_of(name) for name in names} - {dotted(file)}
    return graph


def _normal(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]*", requirement)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def _requirements(distribution: str) -> list[str]:
    try:
        return [line for line in importlib.metadata.requires(distribution) or [] if "extra ==" not in line]
    except importlib.metadata.PackageNotFoundError:
        return []  # only for another platform


VIOLATIONS = {
    "upward": ("feed/hub.py", "from outfeed.http.app import live"),
    "upward, from the package": ("store/outbox.py", "from outfeed import http"),
    "upward, by import": ("store/outbox.py", "import outfeed.http.server.command as serve"),
    "upward, relative": ("feed/hub.py", "from ..http import live"),
    "upward, in a function": ("feed/hub.py", "def f():\n    from outfeed.jobs import start"),
    "upward, for types": ("events.py", "if TYPE_CHECKING:\n    from outfeed.store.outbox import Record"),
    "sideways": ("feed/relay.py", "from outfeed.store import outbox"),
    "sideways, back": ("store/outbox.py", "import outfeed.feed.source"),
    "web from jobs": ("jobs.py", "from outfeed.http.app import live"),
    "the root": ("store/outbox.py", "import outfeed"),
    "the root's names": ("http/app.py", "from outfeed import log_event"),
    "an unknown room": ("utils/text.py", "import os"),
    "sqlite3 outside the store": ("http/health.py", "import sqlite3"),
    "SQL in a view": ("log/api.py", "rows = connection.execute('SELECT seq FROM outbox')"),
    "sqlite3 by name": ("feed/source.py", "from sqlite3 import Connection"),
    "redis outside the edge": ("http/health.py", "import redis"),
    "redis by name": ("feed/source.py", "from redis.exceptions import RedisError"),
    "flask in the store": ("store/database.py", "from flask import g"),
    "werkzeug in the feed": ("feed/socket_writer.py", "import werkzeug.exceptions"),
    "an extension in the feed": ("feed/socket_writer.py", "from flask_login import login_user"),
    "wall clock": ("events.py", "import time\ntime.time()"),
    "wall clock, by another name": ("events.py", "from time import time_ns as stamp"),
    "monotonic clock": ("feed/relay.py", "import time as t\nnow = t.monotonic"),
    "datetime": ("store/outbox.py", "from datetime import datetime\ndatetime.now()"),
    "datetime, by its module": ("store/outbox.py", "import datetime as dt\ndt.datetime.utcnow()"),
    "date": ("store/outbox.py", "from datetime import date\ndate.today()"),
    "the environment": ("http/limits.py", "import os\nos.environ['A']"),
    "the environment, by call": ("http/limits.py", "import os\nos.getenv('A')"),
    "a command that prints": ("log/commands.py", "import click\nclick.echo('x')"),
    "the environment, by name": ("http/limits.py", "from os import environ"),
}
ALLOWED = {
    "down": (
        "http/status.py",
        "from outfeed.feed.hub import Hub\nfrom outfeed.store import outbox\nfrom outfeed import clock, jobs",
    ),
    "swarm may use the store": ("swarm/transitions.py", "from outfeed.store import event_log"),
    "the command may use the public names": ("log/commands.py", "from outfeed import log_event"),
    "its own room": (
        "feed/hub.py",
        "from outfeed.feed.cohort import Cohort\nfrom . import frames\nfrom .relay import Relay",
    ),
    "a clock in clock.py": ("clock.py", "import time\ntime.monotonic()"),
    "the environment in its module": ("config/environment.py", "import os\nos.environ"),
    "SQL in a feature's store": ("log/store/page.py", "rows = connection.execute('SELECT seq FROM outbox')"),
    "sqlite3 in the store": ("store/outbox.py", "import sqlite3"),
    "sleep reads no clock": ("store/commits.py", "import time\ntime.sleep(0.0005)"),
    "a method that is called now": ("store/outbox.py", "from outfeed import clock\nclock.now()\nself.datetime.now()"),
    "datetimes as values": ("events.py", "from datetime import datetime\ndatetime.fromisoformat('2024-01-15')"),
}


class TestRules:
    @pytest.mark.parametrize(("file", "source"), VIOLATIONS.values(), ids=VIOLATIONS)
    def test_a_violation_is_found_once(self, file, source):
        assert len(problems(Path(file), source)) == 1

    @pytest.mark.parametrize(("file", "source"), ALLOWED.values(), ids=ALLOWED)
    def test_allowed_code_passes(self, file, source):
        assert problems(Path(file), source) == []

    @pytest.mark.parametrize(
        "text", ["row.innerHTML = text", "x.insertAdjacentHTML(a, b)", "{{ data | safe }}", "{{ a|safe}}"]
    )
    def test_text_that_becomes_markup_is_found(self, text):
        assert MARKUP_FROM_TEXT.search(text)
