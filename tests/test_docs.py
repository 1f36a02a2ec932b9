"""The documentation: tables match the code, links work, errors are listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from outfeed import config, errors, manual
from outfeed.feed import frames
from outfeed.http import error_codes
from outfeed.http.server.exhaustion import DESCRIPTORS
from scripts import reference

ROOT = Path(__file__).parents[1]
PAGES = {topic: (manual.FOLDER / f"{topic}.md").read_text("utf-8") for topic in manual.topics()}
CODE = "\n".join(path.read_text() for path in sorted((ROOT / "app").rglob("*.py")))
# Codes that are set far from their status, and codes that are in a table.
INVALID = re.compile(r'InvalidRequest\(\s*"(\w+)"')
GIVEN = re.compile(r'\bcode ?= ?"(\w+)"')


def test_every_page_is_in_the_menu_once():
    files = sorted(file.stem for file in manual.FOLDER.iterdir())
    assert sorted(manual.topics()) == files


@pytest.mark.parametrize("topic", PAGES)
def test_no_two_paragraphs_begin_alike(topic):
    paragraphs = [line for line in without_code(PAGES[topic]).splitlines() if re.match(r"(\*\*|[A-Z])", line)]
    begins = [paragraph[:80] for paragraph in paragraphs if len(paragraph) > 120]
    assert sorted(set(begins)) == sorted(begins)


def test_the_failures_of_a_server_are_quoted_as_they_are_answered():
    quoted = [text.strip(" …") for text in re.findall(r"\| 503 `([^`]+)`", PAGES["troubleshooting"])]
    answers = {each.in_short for each in vars(errors).values() if hasattr(each, "in_short")}
    answers.add(f"the server is out of {DESCRIPTORS}")
    assert len(quoted) == 6
    assert [text for text in quoted if not any(text in answer for answer in answers)] == []


def test_the_guide_to_an_adoption_names_the_tables(database):
    with database.connection() as connection:
        made = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'outfeed\\_%' ESCAPE '\\'"
        )
        names = sorted(name for (name,) in made)
    assert ", ".join(f"`{name}`" for name in names) in PAGES["adopt"]


class TestTables:
    @pytest.mark.parametrize("topic", PAGES)
    def test_a_generated_part_matches_the_code(self, topic, database):
        assert reference.filled(PAGES[topic]) == PAGES[topic], "run scripts/docs"

    def test_every_generated_part_is_on_one_page(self):
        found = [part for text in PAGES.values() for part in reference.parts_in(text)]
        assert sorted(found) == sorted(reference.PARTS)

    def test_a_table_that_differs_from_the_code_is_found(self):
        assert reference.filled(PAGES["websocket"].replace("| 4008 |", "| 4018 |")) == PAGES["websocket"]

    def test_every_setting_has_its_default(self):
        for name, field in config.Settings.model_fields.items():
            assert f"| `OUTFEED_{name.upper()}` | " in PAGES["settings"]
            if isinstance(field.default, int | float) and field.default is not True:
                assert f"| `OUTFEED_{name.upper()}` | `{field.default}` | " in PAGES["settings"]

    def test_every_close_code_has_the_clients_next_step(self):
        codes = {value for name, value in vars(frames).items() if name.isupper() and isinstance(value, int)}
        assert {code for code in codes if code > 999} == set(frames.CLOSE_CODES)

    @pytest.mark.parametrize("type_", sorted(set(re.findall(r'\bmessage\("(\w+)"', CODE)) | {"event", "error"}))
    def test_every_frame_is_described(self, type_):
        assert f'"type": "{type_}"' in PAGES["websocket"]


class TestErrorCodes:
    @pytest.mark.parametrize("code", sorted({*INVALID.findall(CODE), *GIVEN.findall(CODE)}))
    def test_every_raised_code_is_documented(self, code):
        assert code in error_codes.CODES

    @pytest.mark.parametrize("code", error_codes.CODES)
    def test_every_documented_code_is_raised(self, code):
        statuses = error_codes.CODES[code].statuses
        is_default = any(error_codes.of_status(status) == code for status in statuses)
        assert is_default or code in {*INVALID.findall(CODE), *GIVEN.findall(CODE)}

    def test_the_code_of_a_status_is_used_with_it(self):
        for status in range(400, 600):
            if code := error_codes.of_status(status):
                assert status in error_codes.CODES[code].statuses

    @pytest.mark.parametrize(
        ("path", "status", "code"),
        [("/api/events?limit=0", 422, "invalid_field"), ("/api/events/nope", 404, "not_found")],
    )
    def test_the_type_of_a_problem_links_to_its_place_in_the_docs(self, api: FlaskClient, path, status, code):
        answer = api.get(path)
        assert (answer.status_code, answer.json["code"]) == (status, code)
        assert answer.json["type"] == f"/docs/errors#{code}"
        assert f' id="{code}">' in api.get("/docs/errors").text


class TestLinks:
    @pytest.mark.parametrize("topic", PAGES)
    def test_a_link_leads_to_an_existing_page_and_heading(self, topic):
        assert broken_links(PAGES[topic], manual.FOLDER) == []

    def test_the_readme_links_to_files_and_headings(self):
        assert broken_links((ROOT / "README.md").read_text(), ROOT) == []

    def test_a_broken_link_is_found(self):
        text = "[a](nope.md) [b](websocket.md#nope) [c](websocket.md#close-codes)"
        assert broken_links(text, manual.FOLDER) == ["nope.md", "websocket.md#nope"]


def broken_links(text: str, folder: Path) -> list[str]:
    """Return the links of *text* to a missing file or heading.

    A link is relative to *folder*.
    """
    links = re.findall(r"\]\(([^)]+)\)", without_code(text))
    return [
        link for link in links if not link.startswith(("http:", "https:")) and not leads_somewhere(link, text, folder)
    ]


def leads_somewhere(link: str, text: str, folder: Path) -> bool:
    path, _, anchor = link.partition("#")
    if path and not (folder / path).exists():
        return False
    target = (folder / path).read_text() if path and anchor else text
    return not anchor or anchor in map(manual.anchor_of, re.findall(r"^#+ +(.+)$", without_code(target), re.MULTILINE))


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)
