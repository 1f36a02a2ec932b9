"""`outfeed type`: set, list, remove, export and import displays."""

from __future__ import annotations

import json

import pytest

from outfeed import list_events
from outfeed.display import Display, Level
from outfeed.store import displays
from outfeed.store.displays import MadeBy
from outfeed.types import display_file

PAID = {"name": "order.paid", "icon": "⚡", "label": "Paid {amount}", "level": "info", "made_by": "command"}


@pytest.fixture
def listed(outfeed, database):
    return lambda: json.loads(outfeed("type", "list", "--json").output)


def put_by_watch(database, by_type):
    with database.transaction() as connection:
        displays.put(connection, by_type, MadeBy.WATCH)


class TestSet:
    def test_it_sets_a_display_and_says_so(self, outfeed, listed):
        result = outfeed("type", "set", "order.paid", "--icon", "⚡", "--label", "Paid {amount}")

        assert result.output == "Set the display of order.paid.\n"
        assert listed() == [PAID]

    def test_it_replaces_all_of_an_earlier_display(self, outfeed, listed):
        outfeed("type", "set", "order.paid", "--icon", "⚡", "--label", "Paid {amount}")
        outfeed("type", "set", "order.paid", "--level", "error")

        assert listed() == [PAID | {"icon": "", "label": "", "level": "error"}]

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (["order.paid"], 2, "Give at least one of"),
            (["order.paid", "--level", "loud"], 2, "'loud' is not one of"),
            (["order.paid", "--label", "{amount"], 1, "order.paid: label: has a brace"),
            (["task.created", "--icon", "x"], 1, "task.created: Outfeed defines this type"),
            (["orders", "--icon", "x"], 1, "'orders': must be a type"),
        ],
    )
    def test_what_cannot_be_set_is_named_and_changes_nothing(self, outfeed, listed, arguments, code, said):
        result = outfeed("type", "set", *arguments)

        assert (result.exit_code, said in result.stderr) == (code, True)
        assert listed() == []


def test_the_list_is_a_table_with_a_count(outfeed, database):
    outfeed("type", "set", "order.paid", "--icon", "⚡", "--label", "Paid {amount}")
    put_by_watch(database, {"order.failed": Display(level=Level.ERROR)})

    lines = outfeed("type", "list").output.splitlines()
    assert [line.split() for line in lines[-3:]] == [
        ["order.failed", "error", "watch"],
        ["order.paid", "⚡", "Paid", "{amount}", "info", "command"],
        ["There", "are", "2", "displays."],
    ]


def test_a_removed_display_is_gone_and_an_unknown_one_is_an_error(outfeed, listed):
    outfeed("type", "set", "order.paid", "--icon", "⚡")

    assert outfeed("type", "remove", "order.paid").output == "Removed the display of order.paid.\n"
    assert listed() == []
    assert outfeed("type", "remove", "order.paid").stderr == "Error: the type 'order.paid' has no display\n"


class TestFiles:
    def test_an_export_is_imported_as_it_was(self, outfeed, listed, tmp_path):
        label = 'Paid "{amount}" \\ {memo:20}'
        outfeed("type", "set", "order.paid", "--icon", "⚡", "--label", label)
        outfeed("type", "set", "order.failed", "--level", "error")
        before, file = listed(), tmp_path / "types.toml"

        assert outfeed("type", "export", file).stderr == "Exported 2 displays.\n"
        for name in ("order.paid", "order.failed"):
            outfeed("type", "remove", name)
        assert outfeed("type", "import", file).output.splitlines()[-1] == "Imported 2 displays, 2 changed."
        assert listed() == before
        assert outfeed("type", "import", file).output == "Imported 2 displays, 0 changed.\n"

    def test_an_export_leaves_the_displays_of_watches_out(self, outfeed, database):
        put_by_watch(database, {"order.failed": Display(level=Level.ERROR)})
        outfeed("type", "set", "order.paid", "--icon", "⚡")

        assert outfeed("type", "export").stdout == '["order.paid"]\nicon = "⚡"\nlevel = "info"\n'

    def test_an_import_leaves_other_types_and_takes_over_those_of_a_watch(self, outfeed, listed, database, tmp_path):
        put_by_watch(database, {"order.paid": Display("⚡", "Paid {amount}")})
        outfeed("type", "set", "order.sent", "--icon", "x")

        result = outfeed("type", "import", written(tmp_path, '["order.paid"]\nicon = "⚡"\nlabel = "Paid {amount}"'))
        assert result.output == "set order.paid\nImported 1 display, 1 changed.\n"
        assert [(each["name"], each["made_by"]) for each in listed()] == [
            ("order.paid", "command"), ("order.sent", "command"),
        ]  # fmt: skip

    def test_a_dry_run_says_what_would_change_and_changes_nothing(self, outfeed, listed, tmp_path):
        result = outfeed("type", "import", written(tmp_path, '["order.paid"]\nicon = "⚡"'), "--dry-run")

        assert result.output == "would set order.paid\nWould import 1 display, 1 changed.\n"
        assert listed() == []

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("x", "not TOML"),
            ('["order.paid"]', "order.paid: has no icon, label or level"),
            ('[order.paid]\nicon = "x"', 'order: quote the whole type, ["order.paid"]'),
            ('icon = "x"', "icon: must be a table"),
            ('["order.paid"]\ncolour = "x"', "order.paid: colour: is an unknown field"),
            ('["order.paid"]\nicon = 7', "order.paid: icon: must be text"),
            ('["order.paid"]\nlevel = ["error"]', "order.paid: level: must be info"),
            ('["task.created"]\nicon = "x"', "task.created: Outfeed defines this type"),
        ],
    )
    def test_one_mistake_keeps_a_whole_file_out(self, outfeed, listed, tmp_path, text, said):
        result = outfeed("type", "import", written(tmp_path, f'["a.first"]\nicon = "x"\n{text}'))
        if text.startswith(("x", "icon")):
            result = outfeed("type", "import", written(tmp_path, text))

        assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
        assert listed() == []


def written(folder, text):
    file = folder / "given.toml"
    file.write_text(text, "utf-8")
    return file


def test_what_toml_writes_it_reads():
    by_type = {
        "a.b": Display("🗑️", "quote \" backslash \\ apostrophe ' hash # {was.a|b:9}", Level.WARNING),
        "c.d": Display(),
    }
    assert display_file.parsed(display_file.written(by_type)) == by_type


def test_each_change_is_an_event_with_the_principal(outfeed, database, tmp_path):
    outfeed("type", "set", "order.paid", "--icon", "⚡")
    outfeed("type", "export", tmp_path / "types.toml")
    outfeed("type", "import", tmp_path / "types.toml")
    outfeed("type", "remove", "order.paid")
    outfeed("type", "import", tmp_path / "types.toml", "--dry-run")
    outfeed("type", "import", tmp_path / "types.toml")

    events = [event for event in reversed(list_events()) if event.event_type.startswith("access.display")]

    assert [(event.event_type, event.data) for event in events] == [
        ("access.display_set", {"name": "order.paid", "icon": "⚡", "level": "info", "by": "command line"}),
        ("access.display_removed", {"name": "order.paid", "by": "command line"}),
        ("access.displays_imported", {"count": 1, "types": ["order.paid"], "by": "command line"}),
    ]
