"""Checkpoints: one suite for the database and for the fake in memory.

Then come the tests of the database only.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

import pytest

from outfeed import log_event
from outfeed.access.store import account, user
from outfeed.errors import ForbiddenConsumer, InvalidRequest, Superseded, UnknownName
from outfeed.feed.source import CheckpointStore
from outfeed.principal import Principal
from outfeed.store import checkpoint
from outfeed.store.checkpoint import Checkpoints
from outfeed.store.database import Database
from outfeed.store.outbox import Outbox
from tests.feed.fake_source import MemoryCheckpoints, MemorySource

OWNER = Principal("bot", ("read",), "token:1")
ROTATED = Principal("bot", ("read", "write"), "token:2")
OTHER = Principal("thief", ("read",), "token:3")
NAMESAKE = Principal("bot", ("read",), "session:4")
TICKET = Principal("bot", ("read",), "ticket:token:1")
OPERATORS = {
    "a token with admin": Principal("root", ("admin",), "token:5"),
    "an operator who signed in": Principal("ann", ("read", "write", "admin"), "session:6"),
}
STRANGERS = {"another token": OTHER, "a user of the same name": NAMESAKE, "a page with its ticket": TICKET}


class World(Protocol):
    """Checkpoints over a history of events."""

    checkpoints: CheckpointStore

    def write(self, count: int) -> None: ...

    def epoch(self) -> str: ...


class InMemory:
    def __init__(self) -> None:
        self._source = MemorySource()
        self.checkpoints = MemoryCheckpoints(self._source)

    def write(self, count: int) -> None:
        self._source.add(count)

    def epoch(self) -> str:
        return self._source.epoch


class OnDisk:
    def __init__(self, database: Database) -> None:
        self._outbox = Outbox(database, 65_536)
        self.checkpoints = Checkpoints(database)

    def write(self, count: int) -> None:
        for _ in range(count):
            log_event("a.b", "s")

    def epoch(self) -> str:
        return self._outbox.window().epoch


@pytest.fixture(params=["in memory", "on disk"])
def world(request: pytest.FixtureRequest) -> World:
    return InMemory() if request.param == "in memory" else OnDisk(request.getfixturevalue("database"))


class TestBoth:
    """The contract of both: a fake that differs from the real class fails."""

    def test_a_new_consumer_begins_at_the_head_and_each_claim_is_a_newer_one(self, world: World) -> None:
        world.write(3)
        first = world.checkpoints.claim("ops", OWNER)
        world.write(1)
        second = world.checkpoints.claim("ops", OWNER)
        assert (first.epoch, first.seq, second.seq) == (world.epoch(), 3, 3)
        assert second.generation == first.generation + 1
        assert world.checkpoints.generations(["ops", "nobody"]) == {"ops": second.generation}

    @pytest.mark.parametrize("has_generation", [True, False])
    def test_an_ack_never_moves_backwards(self, world: World, has_generation: bool) -> None:
        claim = world.checkpoints.claim("ops", OWNER)
        world.write(5)
        generation = claim.generation if has_generation else None
        world.checkpoints.move("ops", world.epoch(), 5, OWNER, generation)
        world.checkpoints.move("ops", world.epoch(), 3, OWNER, generation)
        assert world.checkpoints.claim("ops", OWNER).seq == 5

    def test_an_ack_of_an_older_connection_is_superseded(self, world: World) -> None:
        older = world.checkpoints.claim("ops", OWNER)
        world.write(1)
        world.checkpoints.claim("ops", OWNER)
        with pytest.raises(Superseded):
            world.checkpoints.move("ops", world.epoch(), 1, OWNER, older.generation)
        assert world.checkpoints.claim("ops", OWNER).seq == 0

    @pytest.mark.parametrize(("epoch", "seq"), [(None, 2), ("another", 1)])
    def test_an_ack_of_a_seq_that_was_never_assigned_is_refused(
        self, world: World, epoch: str | None, seq: int
    ) -> None:
        claim = world.checkpoints.claim("ops", OWNER)
        world.write(1)
        with pytest.raises(InvalidRequest) as refused:
            world.checkpoints.move("ops", epoch or world.epoch(), seq, OWNER, claim.generation)
        assert refused.value.code == "ack_beyond"
        assert world.checkpoints.claim("ops", OWNER).seq == 0

    def test_an_ack_of_a_missing_consumer_is_superseded(self, world: World) -> None:
        with pytest.raises(Superseded):
            world.checkpoints.move("ops", world.epoch(), 0, OWNER, 1)

    def test_a_claim_that_may_not_create_creates_nothing(self, world: World) -> None:
        with pytest.raises(UnknownName):
            world.checkpoints.claim("ops", OWNER, may_create=False)
        assert world.checkpoints.generations(["ops"]) == {}

    @pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
    def test_other_principals_neither_claim_nor_acknowledge_it(self, world: World, stranger: Principal) -> None:
        claim = world.checkpoints.claim("ops", OWNER)
        world.write(1)
        with pytest.raises(ForbiddenConsumer):
            world.checkpoints.claim("ops", stranger)
        for generation in (None, claim.generation):
            with pytest.raises(ForbiddenConsumer):
                world.checkpoints.move("ops", world.epoch(), 1, stranger, generation)
        assert world.checkpoints.generations(["ops"]) == {"ops": claim.generation}
        assert world.checkpoints.claim("ops", OWNER).seq == 0

    def test_a_page_with_a_ticket_creates_no_consumer(self, world: World) -> None:
        with pytest.raises(ForbiddenConsumer):
            world.checkpoints.claim("ops", TICKET)

    @pytest.mark.parametrize("principal", [ROTATED, *OPERATORS.values()], ids=["its token, rotated", *OPERATORS])
    def test_its_owner_and_operators_claim_and_acknowledge_it(self, world: World, principal: Principal) -> None:
        world.checkpoints.claim("ops", OWNER)
        world.write(1)
        claim = world.checkpoints.claim("ops", principal)
        world.checkpoints.move("ops", world.epoch(), 1, principal, claim.generation)
        assert world.checkpoints.claim("ops", OWNER).seq == 1, "it still belongs to its owner"


# --- only in the database ---------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoints(database: Database) -> Checkpoints:
    return Checkpoints(database, 2)


def owners(database: Database) -> dict[str, str | None]:
    return {each.name: each.owner for each in checkpoint.list_checkpoints(database)}


def audit_of(database: Database) -> list[tuple[str, dict[str, Any]]]:
    with database.connection() as connection:
        rows = connection.execute(
            "SELECT event_type, data FROM event_log WHERE event_type LIKE 'access.consumer%' ORDER BY rowid"
        )
        return [(event_type, json.loads(data)) for event_type, data in rows]


class TestCreate:
    def test_create_returns_whether_the_name_is_new_and_keeps_the_connection(self, checkpoints: Checkpoints) -> None:
        found, is_new = checkpoints.create("ops", OWNER)
        assert (found.owner, found.is_protected, is_new) == ("token:bot", False, True)
        claim = checkpoints.claim("ops", OWNER)
        again, is_new = checkpoints.create("ops", OWNER)
        assert (again.generation, is_new) == (claim.generation, False)

    def test_a_name_of_another_owner_is_refused(self, checkpoints: Checkpoints) -> None:
        checkpoints.create("ops", OWNER)
        with pytest.raises(ForbiddenConsumer):
            checkpoints.create("ops", OTHER)

    def test_an_owner_has_no_more_than_the_limit(self, checkpoints: Checkpoints, database: Database) -> None:
        checkpoints.create("a", OWNER)
        checkpoints.claim("b", OWNER)
        for make in (checkpoints.create, checkpoints.claim):
            with pytest.raises(InvalidRequest) as refused:
                make("c", OWNER)
            assert refused.value.code == "too_many_consumers"
        checkpoints.claim("a", OWNER)
        checkpoints.create("d", OTHER)
        assert set(owners(database)) == {"a", "b", "d"}

    def test_a_limit_of_zero_is_no_limit(self, database: Database) -> None:
        checkpoints = Checkpoints(database, 0)
        for n in range(5):
            checkpoints.create(f"c{n}", OWNER)
        assert len(owners(database)) == 5


USES = {
    "claims": lambda checkpoints, by: checkpoints.claim("old", by),
    "claims by a stream": lambda checkpoints, by: checkpoints.claim("old", by, may_create=False),
    "creates": lambda checkpoints, by: checkpoints.create("old", by),
    "reads": lambda checkpoints, by: checkpoints.read("old", by),
    "acknowledges": lambda checkpoints, by: checkpoints.move("old", checkpoints.create("x", by)[0].epoch, 0, by),
}


class TestFirstClaim:
    """A consumer without an owner.

    It is from before consumers had owners, or a command made it without one.
    """

    @pytest.fixture(autouse=True)
    def old(self, database: Database) -> None:
        checkpoint.add(database, "old", is_protected=None)

    @pytest.mark.parametrize("use", USES.values(), ids=USES)
    def test_the_first_principal_that_uses_the_consumer_becomes_its_owner(
        self, checkpoints: Checkpoints, database: Database, use: Any
    ) -> None:
        use(checkpoints, OWNER)
        use(checkpoints, OWNER)
        assert owners(database)["old"] == "token:bot"
        assert audit_of(database) == [
            ("access.consumer_claimed", {"name": "old", "owner": "token:bot", "by": "token:bot"})
        ]
        with pytest.raises(ForbiddenConsumer):
            checkpoints.claim("old", OTHER)

    @pytest.mark.parametrize("use", USES.values(), ids=USES)
    def test_a_protected_consumer_gets_its_owner_by_command(
        self, checkpoints: Checkpoints, database: Database, use: Any
    ) -> None:
        checkpoint.add(database, "old", is_protected=True)
        with pytest.raises(ForbiddenConsumer, match="outfeed consumer own old token:bot"):
            use(checkpoints, OWNER)
        use(checkpoints, OPERATORS["a token with admin"])
        assert owners(database)["old"] is None
        account.create_token(database, "bot", ["read"])
        checkpoint.change_owner(database, "old", "token:bot")
        use(checkpoints, OWNER)

    @pytest.mark.parametrize(("name", "owner"), [("reads", None), ("acknowledges", None), ("claims", "token:root")])
    def test_an_operator_that_only_reads_does_not_become_the_owner(
        self, checkpoints: Checkpoints, database: Database, name: str, owner: str | None
    ) -> None:
        USES[name](checkpoints, OPERATORS["a token with admin"])
        assert owners(database)["old"] == owner

    def test_a_ticket_does_not_claim_the_consumer(self, checkpoints: Checkpoints, database: Database) -> None:
        with pytest.raises(ForbiddenConsumer):
            checkpoints.claim("old", TICKET)
        assert owners(database)["old"] is None


class TestRead:
    @pytest.mark.parametrize("ask", ["read", "require"])
    def test_reading_creates_nothing_and_names_the_request_that_does(
        self, checkpoints: Checkpoints, database: Database, ask: str
    ) -> None:
        with pytest.raises(UnknownName, match="POST /api/consumers"):
            getattr(checkpoints, ask)("ops", OWNER)
        assert owners(database) == {}

    @pytest.mark.parametrize("ask", ["read", "require"])
    @pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
    def test_reading_is_forbidden_to_other_principals(
        self, checkpoints: Checkpoints, stranger: Principal, ask: str
    ) -> None:
        checkpoints.create("ops", OWNER)
        with pytest.raises(ForbiddenConsumer):
            getattr(checkpoints, ask)("ops", stranger)

    def test_reading_keeps_the_connection(self, checkpoints: Checkpoints) -> None:
        claim = checkpoints.claim("ops", OWNER)
        for by in (OWNER, *OPERATORS.values()):
            assert checkpoints.read("ops", by) == claim


class TestOwn:
    @pytest.fixture(autouse=True)
    def principals(self, database: Database) -> None:
        account.create_token(database, "bot", ["read"])
        user.add(database, "a:b", "viewer")

    def test_the_command_changes_the_owner_and_closes_the_previous_owners_connection(
        self, checkpoints: Checkpoints, database: Database
    ) -> None:
        claim = checkpoints.claim("ops", OTHER)
        checkpoint.change_owner(database, "ops", "token:bot", by="command line")
        assert owners(database) == {"ops": "token:bot"}
        assert checkpoints.generations(["ops"])["ops"] > claim.generation
        with pytest.raises(ForbiddenConsumer):
            checkpoints.claim("ops", OTHER)
        assert audit_of(database) == [
            (
                "access.consumer_owned",
                {"name": "ops", "owner": "token:bot", "before": "token:thief", "by": "command line"},
            )
        ]

    def test_giving_a_consumer_to_its_owner_changes_nothing(self, checkpoints: Checkpoints, database: Database) -> None:
        claim = checkpoints.claim("ops", OWNER)
        checkpoint.change_owner(database, "ops", "token:bot", by="command line")
        assert checkpoints.generations(["ops"]) == {"ops": claim.generation}
        assert audit_of(database) == []

    @pytest.mark.parametrize("owner", ["token:none", "user:bot", "token:a:b", "bot", "session:bot", "token:", ""])
    def test_an_owner_that_does_not_exist_is_refused(
        self, checkpoints: Checkpoints, database: Database, owner: str
    ) -> None:
        checkpoints.claim("ops", OTHER)
        with pytest.raises(UnknownName, match="token:NAME or user:NAME"):
            checkpoint.change_owner(database, "ops", owner)
        with pytest.raises(UnknownName):
            checkpoint.add(database, "new", is_protected=True, owner=owner)
        assert owners(database) == {"ops": "token:thief"}

    def test_a_users_name_may_have_a_colon(self, checkpoints: Checkpoints, database: Database) -> None:
        checkpoints.claim("ops", OTHER)
        checkpoint.change_owner(database, "ops", "user:a:b")
        checkpoints.claim("ops", Principal("a:b", ("read",), "session:9"))

    def test_an_unknown_consumer_is_refused(self, database: Database) -> None:
        with pytest.raises(UnknownName, match="no consumer named 'ops'"):
            checkpoint.change_owner(database, "ops", "token:bot")


class TestReset:
    def test_events_after_a_reset_are_delivered_after_every_repeated_reset(
        self, checkpoints: Checkpoints, database: Database
    ) -> None:
        outbox = Outbox(database, 65_536)
        checkpoints.claim("ops", OWNER)
        log_event("a.b", "s")
        outbox.renew_epoch(outbox.window().epoch)
        log_event("a.b", "s")
        for _ in range(2):
            assert checkpoints.claim("ops", OWNER).reset_seq == 2
            assert checkpoints.read("ops", OWNER).reset_seq == 2
            log_event("a.b", "s")


class TestRotation:
    def test_a_new_token_under_the_name_of_a_revoked_one_owns_its_consumers(
        self, checkpoints: Checkpoints, database: Database
    ) -> None:
        first = account.find_token(database, account.create_token(database, "bot", ["read"]))
        assert first is not None
        checkpoints.claim("ops", first)
        account.revoke_token(database, "bot")
        second = account.find_token(database, account.create_token(database, "bot", ["read"]))
        assert second is not None
        assert second.grant != first.grant
        checkpoints.claim("ops", second)


class TestGenerations:
    """The cost of each commit while a consumer is connected."""

    def test_only_the_connected_consumers_are_read_among_many(self, database: Database) -> None:
        with database.transaction() as connection:
            connection.executemany(
                "INSERT INTO outfeed_checkpoint (name, epoch, seq, generation, is_protected, created_at, seen_at)"
                " VALUES (?, 'e', 0, 1, 0, 't', 't')",
                [(f"consumer-{n}",) for n in range(20_000)],
            )
        instructions = []
        with database.connection() as connection:  # the connection that is used next as well
            connection.set_progress_handler(lambda: instructions.append(1), 1)
        found = Checkpoints(database).generations(["consumer-7", "consumer-19999", "nobody"])
        assert found == {"consumer-7": 1, "consumer-19999": 1}
        assert 0 < len(instructions) < 1000
