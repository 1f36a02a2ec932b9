"""upgrade and status."""

import json

from outfeed.store.event_log import log_event


class TestUpgrade:
    def test_it_makes_the_database_and_names_what_it_applied(self, outfeed, tmp_path):
        lines = outfeed("upgrade").output.splitlines()

        path = tmp_path / "outfeed.db"
        assert lines[0] == "0001.event-log"
        assert lines[-1] == f"Applied {len(lines) - 1} migrations to {path}."
        assert path.exists()

    def test_the_second_time_there_is_nothing_to_do(self, outfeed, database):
        assert outfeed("upgrade").output == f"{database.path} is up to date.\n"

    def test_a_database_made_by_newer_code_is_refused(self, outfeed, database):
        with database.transaction() as connection:
            connection.execute("INSERT INTO outfeed_migration (applied_at, name) VALUES ('x', '9999.future')")

        result = outfeed("upgrade")

        assert result.exit_code == 1
        assert "9999.future" in result.stderr


class TestStatus:
    def test_it_shows_where_the_feed_stands(self, outfeed, database):
        for _ in range(3):
            log_event("task.created", "tests")

        facts = json.loads(outfeed("status", "--json").output)
        assert (facts["head"], facts["events"], facts["outbox"]) == (3, 3, 3)
        assert facts["database"] == str(database.path)

        lines = outfeed("status").output.splitlines()
        assert f"epoch     {facts['epoch']}" in lines
        assert lines[-1] == "The feed stands at seq 3."
