"""`outfeed consumer`: creation and changes of consumers."""

import json

import pytest

from outfeed.access.store import account, user
from outfeed.store import checkpoint


@pytest.fixture(autouse=True)
def principals(database):
    account.create_token(database, "ops", ["read"])
    user.add(database, "ann", "viewer")


def owner(database):
    return checkpoint.list_checkpoints(database)[0].owner


class TestAdd:
    def test_a_repeat_without_an_option_keeps_the_protection(self, outfeed, database):
        assert outfeed("consumer", "add", "ops").output == "Consumer ops is unprotected.\n"
        assert "protected; pruning keeps its events" in outfeed("consumer", "add", "ops", "--protected").output
        assert "protected; pruning keeps its events" in outfeed("consumer", "add", "ops").output
        assert [each.is_protected for each in checkpoint.list_checkpoints(database)] == [True]
        assert outfeed("consumer", "add", "ops", "--unprotected").output == "Consumer ops is unprotected.\n"

    def test_add_may_set_the_owner_and_a_repeat_keeps_it(self, outfeed, database):
        for arguments in (["--owner", "token:ops"], ["--protected"]):
            assert outfeed("consumer", "add", "ops", *arguments).output.endswith("It belongs to token:ops.\n")
        assert owner(database) == "token:ops"

    def test_add_of_a_protected_consumer_without_an_owner_prints_the_command_for_one(self, outfeed):
        output = outfeed("consumer", "add", "ops", "--protected").output
        assert "Only operators can use it. Set an owner: `outfeed consumer own ops token:NAME`." in output


class TestOwn:
    @pytest.mark.parametrize("principal", ["token:ops", "user:ann"])
    def test_own_gives_the_consumer_to_a_principal(self, outfeed, database, principal):
        outfeed("consumer", "add", "bot", "--protected")
        assert outfeed("consumer", "own", "bot", principal).output == f"Consumer bot belongs to {principal}.\n"
        assert owner(database) == principal

    @pytest.mark.parametrize(
        ("name", "principal", "exit_code", "says"),
        [
            ("bot", "token:none", 1, "there is no principal 'token:none'"),
            ("bot", "user:ops", 1, "there is no principal 'user:ops'"),
            ("bot", "ops", 2, "must be token:NAME or user:NAME"),
            ("bot", "token:", 2, "must be token:NAME or user:NAME"),
            ("none", "token:ops", 1, "there is no consumer named 'none'"),
            ("webhook:ops", "token:ops", 2, "must have 1 to 64 letters"),
        ],
    )
    def test_an_unknown_consumer_or_principal_is_an_error(self, outfeed, database, name, principal, exit_code, says):
        outfeed("consumer", "add", "bot")
        result = outfeed("consumer", "own", name, principal)
        assert (result.exit_code, says in result.output) == (exit_code, True)
        assert owner(database) is None


class TestList:
    def test_the_list_shows_the_owner(self, outfeed):
        outfeed("consumer", "add", "bot", "--owner", "user:ann")
        outfeed("consumer", "add", "free")
        assert "user:ann" in outfeed("consumer", "list").output
        listed = json.loads(outfeed("consumer", "list", "--json").output)
        assert {each["name"]: each["owner"] for each in listed} == {"bot": "user:ann", "free": None}
