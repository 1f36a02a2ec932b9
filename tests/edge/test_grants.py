"""Grants in the engine.

A lost grant is not a revoked one, and a revoked grant is not found.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from outfeed import clock, config
from outfeed.access.store import account, user
from outfeed.edge import origin
from outfeed.edge.displays import EngineDisplays
from outfeed.edge.engine import GRANTS, HEAD, Engine
from outfeed.edge.grants import EngineGrants, EngineTickets, GrantWriter, publish
from outfeed.errors import EngineDown
from outfeed.store.database import Database
from tests.edge.origin_in_process import OriginInProcess
from tests.engines import RedisServer


@pytest.fixture
def database(origin_in_process: OriginInProcess) -> Database:
    """The database of an origin whose engine has no grants yet."""
    return origin_in_process.services.database


@pytest.fixture
def writer(origin_in_process: OriginInProcess) -> GrantWriter:
    """The origin's writer, which waits for nothing."""
    found = GrantWriter(origin_in_process.services, origin_in_process.engine)
    found.stopping.set()
    return found


@pytest.fixture
def grants(engine: Engine) -> EngineGrants:
    return EngineGrants(engine)


def rights(redis_server: RedisServer) -> str | None:
    return redis_server.client.hget(HEAD, "rights")  # type: ignore[return-value]


def test_an_edge_finds_what_the_tables_say(database: Database, writer: GrantWriter, grants: EngineGrants) -> None:
    expiry = clock.now() + timedelta(hours=1)
    secret = account.create_token(database, "ci", ["read"], types=["task.*"], expires_at=expiry)
    user.add(database, "ann", "operator")
    key = account.create_session(database, "ann", timedelta(hours=1))
    writer.step()
    assert grants.find_token(secret) == account.find_token(database, secret)
    assert grants.find_session(key) == account.find_session(database, key)
    assert grants.find_token("outfeed_unknown") is None


def test_a_grant_that_has_expired_is_none(database: Database, writer: GrantWriter, grants: EngineGrants) -> None:
    secret = account.create_token(database, "ci", ["read"], expires_at=clock.now() - timedelta(seconds=1))
    writer.step()
    assert grants.find_token(secret) is None


def test_grants_that_the_engine_lost_are_no_revocation(
    database: Database, writer: GrantWriter, grants: EngineGrants, redis_server: RedisServer
) -> None:
    secret = account.create_token(database, "ci", ["read"])
    writer.step()
    for lose in (redis_server.client.flushall, lambda: redis_server.client.delete(GRANTS)):
        lose()
        with pytest.raises(EngineDown):
            grants.find_token(secret)
        writer.step()
        assert grants.find_token(secret)


def test_a_part_of_older_grants_is_replaced_whole(
    database: Database, writer: GrantWriter, grants: EngineGrants, redis_server: RedisServer
) -> None:
    """An older replica still has a token that was revoked."""
    secret = account.create_token(database, "ci", ["read"])
    writer.step()
    dump = redis_server.client.execute_command("DUMP", GRANTS, NEVER_DECODE=True)
    account.revoke_token(database, "ci")
    writer.step()
    redis_server.client.restore(GRANTS, 0, dump, replace=True)
    assert grants.find_token(secret)
    before = rights(redis_server)
    writer.step()
    assert grants.find_token(secret) is None
    assert rights(redis_server) != before


@pytest.mark.parametrize("change", ["revoke", "role", "disable", "sign out"])
def test_what_is_taken_away_moves_the_counter(
    database: Database, writer: GrantWriter, grants: EngineGrants, redis_server: RedisServer, change: str
) -> None:
    secret = account.create_token(database, "ci", ["read"])
    user.add(database, "zoe", "operator")  # the last one can't be demoted
    user.add(database, "ann", "operator")
    key = account.create_session(database, "ann", timedelta(hours=1))
    writer.step()
    before = rights(redis_server)
    match change:
        case "revoke":
            account.revoke_token(database, "ci")
        case "role":
            user.set_role(database, "ann", "viewer")
        case "disable":
            user.set_disabled(database, "ann", True)
        case "sign out":
            account.end_session(database, key)
    writer.step()
    assert rights(redis_server) != before
    assert grants.find_token(secret) == account.find_token(database, secret)
    assert grants.find_session(key) == account.find_session(database, key)


def test_what_is_given_does_not_move_it(database: Database, writer: GrantWriter, redis_server: RedisServer) -> None:
    writer.step()
    before = rights(redis_server)
    account.create_token(database, "ci", ["read"])
    writer.step()
    assert rights(redis_server) == before
    assert redis_server.client.hlen(GRANTS) == 2


def test_a_session_that_began_and_ended_between_two_looks_is_gone(
    origin_in_process: OriginInProcess, writer: GrantWriter, grants: EngineGrants
) -> None:
    """The request that began it has added it by itself."""
    database = origin_in_process.services.database
    user.add(database, "ann", "viewer")
    writer.step()
    key = account.create_session(database, "ann", timedelta(hours=1))
    found = account.find_session(database, key)
    assert found is not None
    EngineTickets(origin_in_process.engine, origin_in_process.settings).add(found)
    assert grants.find_session(key) == found
    account.end_session(database, key)
    writer.step()
    assert grants.find_session(key) is None


def test_the_grants_expire_without_their_origin(
    origin_in_process: OriginInProcess, writer: GrantWriter, redis_server: RedisServer
) -> None:
    writer.step()
    left = int(redis_server.client.ttl(GRANTS))
    assert left == pytest.approx(origin_in_process.settings.grant_minutes * 60, abs=2)


def test_a_revocation_that_does_not_fit_removes_all_grants(
    database: Database, writer: GrantWriter, grants: EngineGrants, redis_server: RedisServer
) -> None:
    secret = account.create_token(database, "ci", ["read"])
    writer.step()
    account.revoke_token(database, "ci")
    redis_server.client.config_set("maxmemory", "1")
    try:
        with pytest.raises(EngineDown):
            writer.step()
        with pytest.raises(EngineDown):
            grants.find_token(secret)
    finally:
        redis_server.client.config_set("maxmemory", "0")
    writer.restart()
    writer.step()
    assert grants.find_token(secret) is None


def test_the_origin_renews_what_a_command_has_written(
    database: Database, writer: GrantWriter, engine: Engine, grants: EngineGrants
) -> None:
    writer.step()
    secret = account.create_token(database, "ci", ["read"])
    publish(engine, database, 60)
    writer.step()
    assert grants.find_token(secret)


def test_the_writer_publishes_displays_again_after_a_loss(
    origin_in_process: OriginInProcess, writer: GrantWriter, engine: Engine, redis_server: RedisServer
) -> None:
    for lose in (redis_server.client.flushall, lambda: redis_server.client.delete(HEAD)):
        writer.step()
        assert EngineDisplays(engine).current().version == origin_in_process.services.displays.version()
        lose()
        with pytest.raises(EngineDown):
            EngineDisplays(engine).current()


class TestTickets:
    @pytest.fixture
    def tickets(self, origin_in_process: OriginInProcess) -> EngineTickets:
        return EngineTickets(origin_in_process.engine, origin_in_process.settings)

    def test_a_ticket_is_taken_once_and_reads_without_the_audit(
        self, database: Database, writer: GrantWriter, grants: EngineGrants, tickets: EngineTickets
    ) -> None:
        writer.step()
        owner = account.find_token(database, account.create_token(database, "site", ["admin"]))
        assert owner is not None
        ticket = tickets.create_ticket(owner)
        found = grants.redeem_ticket(ticket)
        assert found is not None
        assert (found.scopes, found.has_ticket) == (("read",), True)
        assert grants.redeem_ticket(ticket) is None
        assert tickets.take_ticket(ticket) is None

    def test_a_ticket_ends_with_what_it_rests_on(
        self, database: Database, writer: GrantWriter, grants: EngineGrants, tickets: EngineTickets
    ) -> None:
        owner = account.find_token(database, account.create_token(database, "site", ["read"]))
        assert owner is not None
        writer.step()
        ticket = tickets.create_ticket(owner)
        account.revoke_token(database, "site")
        writer.step()
        assert grants.redeem_ticket(ticket) is None


class TestCommands:
    @pytest.fixture(autouse=True)
    def _settings(self, origin_in_process: OriginInProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("OUTFEED_DATABASE", str(origin_in_process.path))
        monkeypatch.setenv("OUTFEED_ENGINE", origin_in_process.engine.url)
        config.settings.cache_clear()
        yield
        origin.engine_of(origin_in_process.settings).close()

    def test_a_revocation_reaches_edges_while_no_server_runs(self, outfeed, grants: EngineGrants) -> None:  # type: ignore[no-untyped-def]
        secret = outfeed("token", "create", "ci", "--scopes", "read").stdout.strip()
        assert grants.find_token(secret)
        assert outfeed("token", "revoke", "ci").exit_code == 0
        assert grants.find_token(secret) is None

    def test_a_command_that_can_not_reach_the_engine_says_what_that_means(  # type: ignore[no-untyped-def]
        self, outfeed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        outfeed("token", "create", "ci", "--scopes", "read")
        monkeypatch.setenv("OUTFEED_ENGINE", "redis://127.0.0.1:1/0")
        config.settings.cache_clear()
        result = outfeed("token", "revoke", "ci")
        assert result.exit_code == 1
        assert "Edges keep the former permissions until `outfeed serve` can tell them" in result.output
