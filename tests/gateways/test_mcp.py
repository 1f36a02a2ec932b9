"""`POST /mcp`: messages of both revisions, rights, limits and errors."""

from __future__ import annotations

import base64
import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jsonschema
import pytest
from mcp_types import methods

from outfeed import list_events, log_event
from outfeed.access.store import account
from outfeed.gateways.mcp import tools
from outfeed.store.database import Database
from tests.app_fixtures import Api
from tests.http.visitors import signed_in

CURRENT, BEFORE, OLDEST = "2026-07-28", "2025-11-25", "2025-06-18"
META = "io.modelcontextprotocol/"
READERS = ["search_events", "get_event", "task_story", "agent_story", "summary", "wait_for_events"]
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
HEADER_MISMATCH, UNSUPPORTED_VERSION = -32020, -32022


class Mcp:
    """A client of one revision, with a token of its own."""

    def __init__(self, api: Api, secret: str | None = None) -> None:
        self._client = api.app.test_client(use_cookies=False)
        self.headers = {"Authorization": f"Bearer {secret}"} if secret else api.headers

    def post(self, body: Any, **headers: str | None) -> Any:
        given = {**self.headers, "Content-Type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._client.post("/mcp", data=raw, headers={name: each for name, each in given.items() if each})

    def call(self, method: str, version: str = BEFORE, **params: Any) -> Any:
        """Return the HTTP answer to a request of that revision."""
        return self.post(message(method, version, **params), **repeated(method, version, params))

    def result(self, method: str, version: str = BEFORE, **params: Any) -> Any:
        """Return the result, which has the shape of the revision."""
        answer = self.call(method, version, **params)
        assert answer.status_code == 200, answer.text
        assert (answer.json["jsonrpc"], answer.json["id"]) == ("2.0", 7)
        methods.validate_server_result(method, version, answer.json["result"])
        return answer.json["result"]

    def error(self, method: str, version: str = BEFORE, **params: Any) -> tuple[int, int, str]:
        """Return the status, the code and the text of the refusal."""
        return refusal(self.call(method, version, **params))

    def tool(self, name: str, **arguments: Any) -> Any:
        """Return the structured answer of a tool, which its text repeats."""
        found = self.result("tools/call", name=name, arguments=arguments)
        assert not found["isError"], found
        assert json.loads(found["content"][0]["text"]) == found["structuredContent"]
        return found["structuredContent"]

    def tool_error(self, name: str, **arguments: Any) -> str:
        found = self.result("tools/call", name=name, arguments=arguments)
        assert found["isError"]
        return str(found["content"][0]["text"])

    def tool_names(self) -> list[str]:
        return [tool["name"] for tool in self.result("tools/list")["tools"]]


def message(method: str, version: str = BEFORE, **params: Any) -> dict[str, Any]:
    meta = {"_meta": {f"{META}protocolVersion": version, f"{META}clientCapabilities": {}}} if version == CURRENT else {}
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": {**params, **meta}}


def repeated(method: str, version: str, params: dict[str, Any]) -> dict[str, str]:
    """Return the headers that a client of the current revision sends."""
    if version != CURRENT:
        return {"MCP_Protocol_Version": version}
    name = params.get("name") or params.get("uri")
    return {"MCP_Protocol_Version": version, "Mcp_Method": method, **({"Mcp_Name": name} if name else {})}


def refusal(answer: Any) -> tuple[int, int, str]:
    return answer.status_code, answer.json["error"]["code"], answer.json["error"]["message"]


@pytest.fixture
def mcp(api: Api) -> Mcp:
    return Mcp(api)


def with_token(api: Api, database: Database, *scopes: str, **more: Any) -> Mcp:
    return Mcp(api, account.create_token(database, "-".join(scopes), scopes, **more))


class TestRevisions:
    @pytest.mark.parametrize(
        ("asked", "answered"), [(BEFORE, BEFORE), (OLDEST, OLDEST), ("2024-11-05", BEFORE), (CURRENT, BEFORE)]
    )
    def test_a_handshake_is_answered_with_a_revision_that_the_client_has(
        self, mcp: Mcp, asked: str, answered: str
    ) -> None:
        # Codex 0.171.0 and Gemini CLI 0.61.0 ask for 2025-06-18, and Gemini CLI does not accept a newer one.
        info = {"name": "gemini-cli-mcp-client", "version": "0.61.0"}
        body = message("initialize", protocolVersion=asked, capabilities={"roots": {}}, clientInfo=info)

        assert mcp.post(body).json["result"]["protocolVersion"] == answered

    @pytest.mark.parametrize("version", [BEFORE, OLDEST])
    def test_a_revision_with_a_handshake_is_served_without_a_session(self, mcp: Mcp, version: str) -> None:
        info = {"name": "c", "version": "1"}
        answer = mcp.post(message("initialize", protocolVersion=version, capabilities={}, clientInfo=info))

        assert set(answer.json["result"]["capabilities"]) == {"tools", "resources"}
        assert "Mcp-Session-Id" not in answer.headers
        done = mcp.post({"jsonrpc": "2.0", "method": "notifications/initialized"}, MCP_Protocol_Version=version)
        assert (done.status_code, done.data) == (202, b"")
        assert mcp.result("ping", version) == {}
        assert mcp.result("tools/list", version)["tools"][0]["name"] == "search_events"
        found = mcp.result("tools/call", version, name="summary", arguments={})
        assert found["structuredContent"]["notice"]
        assert mcp.error("prompts/list", version)[:2] == (200, METHOD_NOT_FOUND)

    def test_the_current_revision_discovers_the_server_and_needs_no_handshake(self, mcp: Mcp) -> None:
        found = mcp.result("server/discover", CURRENT)

        assert found["supportedVersions"] == [CURRENT, BEFORE, OLDEST]
        assert found["_meta"][f"{META}serverInfo"]["name"] == "outfeed"
        assert (found["resultType"], found["cacheScope"]) == ("complete", "private")

    @pytest.mark.parametrize("method", ["tools/list", "resources/list", "resources/templates/list"])
    def test_both_revisions_get_lists_in_their_own_shape(self, mcp: Mcp, method: str) -> None:
        assert "resultType" not in mcp.result(method, BEFORE)
        assert mcp.result(method, CURRENT)["cacheScope"] == "private"

    @pytest.mark.parametrize("method", ["initialize", "ping", "events/subscribe", "prompts/list", "nonsense"])
    def test_a_method_that_the_current_revision_or_this_server_lacks_is_404(self, mcp: Mcp, method: str) -> None:
        assert mcp.error(method, CURRENT)[:2] == (404, METHOD_NOT_FOUND)

    @pytest.mark.parametrize("method", ["server/discover", "events/list", "prompts/list", "nonsense"])
    def test_a_method_that_the_revision_before_lacks_is_an_error_with_200(self, mcp: Mcp, method: str) -> None:
        assert mcp.error(method, BEFORE)[:2] == (200, METHOD_NOT_FOUND)

    @pytest.mark.parametrize(
        ("headers", "code"),
        [
            ({"MCP_Protocol_Version": None}, HEADER_MISMATCH),
            ({"MCP_Protocol_Version": BEFORE}, HEADER_MISMATCH),
            ({"Mcp_Method": None}, HEADER_MISMATCH),
            ({"Mcp_Method": "tools/list"}, HEADER_MISMATCH),
            ({"Mcp_Name": None}, HEADER_MISMATCH),
            ({"Mcp_Name": "log_event"}, HEADER_MISMATCH),
            ({"Mcp_Name": "=?base64?!!!?="}, HEADER_MISMATCH),
        ],
    )
    def test_headers_that_do_not_repeat_the_message_are_rejected(
        self, mcp: Mcp, headers: dict[str, str | None], code: int
    ) -> None:
        params = {"name": "summary", "arguments": {}}
        given = repeated("tools/call", CURRENT, params) | headers

        assert refusal(mcp.post(message("tools/call", CURRENT, **params), **given))[:2] == (400, code)

    def test_a_name_in_base64_is_decoded_before_it_is_compared(self, mcp: Mcp) -> None:
        uri = "outfeed://events/ä"
        headers = repeated("resources/read", CURRENT, {"uri": "x"})
        headers["Mcp_Name"] = f"=?base64?{base64.b64encode(uri.encode()).decode()}?="

        answer = mcp.post(message("resources/read", CURRENT, uri=uri), **headers)

        assert refusal(answer)[1:] == (INVALID_PARAMS, "no resource 'outfeed://events/ä'")

    def test_an_unknown_revision_is_rejected_with_the_known_ones(self, mcp: Mcp) -> None:
        answer = mcp.post(message("ping"), MCP_Protocol_Version="1900-01-01")

        assert refusal(answer)[:2] == (400, UNSUPPORTED_VERSION)
        assert answer.json["error"]["data"] == {"supported": [CURRENT, BEFORE, OLDEST], "requested": "1900-01-01"}

    def test_a_request_of_the_current_revision_without_its_meta_is_rejected(self, mcp: Mcp) -> None:
        body = {"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {}}
        answer = mcp.post(body, **repeated("tools/list", CURRENT, {}))

        assert refusal(answer)[:2] == (400, INVALID_PARAMS)
        assert "params._meta: Field required" in answer.json["error"]["message"]


class TestMessages:
    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", PARSE_ERROR),
            (b"{", PARSE_ERROR),
            (b"\xff", PARSE_ERROR),
            (b'{"jsonrpc": NaN}', PARSE_ERROR),
            (b"[" * 100_000, PARSE_ERROR),
            ([], INVALID_REQUEST),
            ([message("ping")], INVALID_REQUEST),
            ("text", INVALID_REQUEST),
            (None, INVALID_REQUEST),
            ({}, INVALID_REQUEST),
            ({"jsonrpc": "1.0", "id": 7, "method": "ping"}, INVALID_REQUEST),
            ({"jsonrpc": "2.0", "id": 7}, INVALID_REQUEST),
            ({"jsonrpc": "2.0", "id": 7, "method": 5}, INVALID_REQUEST),
            ({"jsonrpc": "2.0", "id": None, "method": "ping"}, INVALID_REQUEST),
            ({"jsonrpc": "2.0", "id": True, "method": "ping"}, INVALID_REQUEST),
            ({"jsonrpc": "2.0", "id": 1.5, "method": "ping"}, INVALID_REQUEST),
            ({"jsonrpc": "2.0", "id": [], "method": "ping"}, INVALID_REQUEST),
        ],
    )
    def test_a_body_that_is_no_message_is_400(self, mcp: Mcp, body: Any, code: int) -> None:
        answer = mcp.post(body)

        assert refusal(answer)[:2] == (400, code)
        assert answer.json["id"] in (None, 7)

    @pytest.mark.parametrize("params", [[], "x", 5, None])
    def test_params_that_are_no_object_are_rejected(self, mcp: Mcp, params: Any) -> None:
        answer = mcp.post({"jsonrpc": "2.0", "id": 7, "method": "ping", "params": params})

        assert refusal(answer) == (200, INVALID_PARAMS, "params: must be an object")

    @pytest.mark.parametrize(
        ("method", "params"),
        [
            ("tools/call", {}),
            ("tools/call", {"name": 5}),
            ("tools/call", {"name": "summary", "arguments": []}),
            ("resources/read", {}),
            ("resources/list", {"cursor": 5}),
            ("resources/list", {"cursor": "x"}),
        ],
    )
    @pytest.mark.parametrize("version", [BEFORE, CURRENT])
    def test_params_of_the_wrong_shape_are_rejected(
        self, mcp: Mcp, method: str, params: dict[str, Any], version: str
    ) -> None:
        headers = repeated(method, version, {})
        if version == CURRENT and "name" in params:
            headers["Mcp_Name"] = "summary"
        answer = mcp.post(message(method, version, **params), **headers)

        assert answer.status_code == (400 if version == CURRENT else 200)
        assert answer.json["error"]["code"] in (INVALID_PARAMS, HEADER_MISMATCH)

    def test_a_response_and_an_unknown_notification_are_accepted_and_ignored(self, mcp: Mcp) -> None:
        for body in ({"jsonrpc": "2.0", "id": 1, "result": {}}, {"jsonrpc": "2.0", "method": "notifications/x"}):
            assert mcp.post(body).status_code == 202

    def test_a_notification_that_is_invalid_is_400(self, mcp: Mcp) -> None:
        assert refusal(mcp.post({"jsonrpc": "2.0", "method": "notifications/x", "params": 5}))[0] == 400

    def test_a_text_id_is_returned_as_text(self, mcp: Mcp) -> None:
        assert mcp.post({"jsonrpc": "2.0", "id": "a-1", "method": "ping"}).json["id"] == "a-1"

    def test_bodies_have_limits(self, mcp: Mcp) -> None:
        large = message("tools/call", name="log_event", arguments={"event_type": "a.b", "data": "x" * (9 << 20)})
        assert mcp.post(large).status_code == 413
        packed = gzip.compress(json.dumps(large).encode())
        assert mcp.post(packed, Content_Encoding="gzip").status_code == 413
        assert (
            mcp.post(gzip.compress(json.dumps(message("ping")).encode()), Content_Encoding="gzip").json["result"] == {}
        )
        assert mcp.post(message("ping"), Content_Encoding="br").status_code == 415
        assert mcp.post(message("ping"), Content_Type="text/plain").status_code == 415

    @pytest.mark.parametrize(("levels", "is_written"), [(64, True), (65, False), (5000, False)])
    def test_data_has_as_many_levels_as_for_the_api(self, mcp: Mcp, levels: int, is_written: bool) -> None:
        data = "[" * levels + "]" * levels
        body = json.dumps(message("tools/call", name="log_event", arguments={"event_type": "a.b", "data": "DATA"}))
        answer = mcp.post(body.replace('"DATA"', data).encode())

        assert ("result" in answer.json) is is_written
        assert len(list_events()) == is_written
        if not is_written:
            assert refusal(answer)[:2] in ((400, INVALID_REQUEST), (400, PARSE_ERROR))


class TestTheDoor:
    def test_a_cookie_alone_is_401_with_a_challenge(self, api: Api, database: Database) -> None:
        for role in ("viewer", "operator"):
            answer = signed_in(api.app, database, role)("POST", "/mcp", json=message("tools/list"))
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")

    def test_no_token_and_a_wrong_token_are_401_with_a_challenge(self, api: Api) -> None:
        assert Mcp(api).post(message("ping"), Authorization=None).headers["WWW-Authenticate"] == "Bearer"
        answer = Mcp(api, "outfeed_wrong").call("ping")
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer error="invalid_token"')

    def test_an_expired_token_is_401(self, api: Api, database: Database) -> None:
        past = datetime.now(UTC) - timedelta(minutes=1)
        assert with_token(api, database, "read", expires_at=past).call("ping").status_code == 401

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:9999"])
    def test_a_page_of_another_site_is_403(self, mcp: Mcp, origin: str) -> None:
        answer = mcp.post(message("ping"), Origin=origin)
        assert answer.status_code == 403
        assert answer.json["detail"].startswith("a page of another site may not use MCP: Origin is")

    def test_a_page_at_a_host_that_leads_here_is_403_unless_a_setting_names_the_host(self, api: Api, mcp: Mcp) -> None:
        headers = {"Origin": "http://evil.example:8000", "Host": "evil.example:8000", "Sec_Fetch_Site": "same-origin"}
        assert "no setting names the host 'evil.example:8000'" in mcp.post(message("ping"), **headers).json["detail"]
        named = api.services.settings.model_copy(update={"public_url": "http://evil.example:8000"})
        api.services.settings = named
        assert mcp.post(message("ping"), **headers).json["result"] == {}

    def test_a_page_of_this_server_with_a_token_is_served(self, mcp: Mcp) -> None:
        assert mcp.post(message("ping"), Origin="http://localhost").json["result"] == {}

    @pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
    def test_there_is_no_stream_and_no_session(self, api: Api, method: str) -> None:
        answer = api.client.open("/mcp", method=method, headers=api.headers)
        assert answer.status_code == 405
        assert "POST" in answer.headers["Allow"]

    def test_a_token_has_a_limit_of_requests(self, api: Api, mcp: Mcp) -> None:
        api.services.settings = api.services.settings.model_copy(update={"requests_per_minute": 2})
        statuses = [mcp.call("ping").status_code for _ in range(3)]
        assert statuses == [200, 200, 429]


class TestRights:
    @pytest.mark.parametrize(
        ("scopes", "names"),
        [
            (["read"], READERS),
            (["write"], ["log_event"]),
            (["read", "write"], [*READERS, "log_event"]),
            (["admin"], [*READERS, "log_event"]),
        ],
    )
    def test_a_token_sees_only_the_tools_that_it_may_call(
        self, api: Api, database: Database, scopes: list[str], names: list[str]
    ) -> None:
        client = with_token(api, database, *scopes)
        assert client.tool_names() == names
        for name in set(tools.TOOLS) - set(names):
            status, code, text = client.error("tools/call", name=name, arguments={})
            assert (status, code) == (200, INVALID_PARAMS)
            assert text == f"{name} needs a token with the scope {tools.TOOLS[name].scope}"

    def test_a_token_that_may_only_write_reads_no_resource(self, api: Api, database: Database) -> None:
        log_event("a.b", "s", id="x")
        client = with_token(api, database, "write")
        assert client.result("resources/list") == {"resources": []}
        assert client.error("resources/read", uri="outfeed://events/x")[1] == -32002

    def test_the_types_of_a_token_bound_every_tool_and_resource(self, api: Api, database: Database) -> None:
        log_event("task.created", "s", task_id="t", agent_id="a", id="seen")
        log_event("secret.made", "s", task_id="t", agent_id="a", id="hidden")
        client = with_token(api, database, "read", "write", types=("task.*",))

        for name, arguments in (
            ("search_events", {}),
            ("search_events", {"event_type": "secret.*,task.*"}),
            ("search_events", {"text": "t"}),
            ("task_story", {"task_id": "t"}),
            ("agent_story", {"agent_id": "a"}),
            ("wait_for_events", {"after": 0, "wait": 0}),
        ):
            assert [event["id"] for event in client.tool(name, **arguments)["events"]] == ["seen"], name
        assert client.tool("summary")["summary"] == {"task.created": 1}
        assert client.tool("get_event", id="seen")["event"]["id"] == "seen"
        assert client.tool_error("get_event", id="hidden") == "no event with the id 'hidden'"
        assert [each["name"] for each in client.result("resources/list")["resources"]] == ["seen"]
        assert client.error("resources/read", uri="outfeed://events/hidden")[1] == -32002
        assert client.tool("log_event", event_type="task.done")["is_new"]
        assert client.tool_error("log_event", event_type="secret.made").endswith(
            "may not write events of the type 'secret.made'"
        )

    @pytest.mark.parametrize("event_type", ["access.x", "system.pruned"])
    def test_no_token_writes_or_reads_the_audit(self, api: Api, database: Database, event_type: str) -> None:
        account.create_token(database, "other", ["read"], by="tests")
        assert with_token(api, database, "admin").tool_error("log_event", event_type=event_type)
        assert with_token(api, database, "read").tool("search_events", event_type="access.*")["events"] == []

    def test_a_resource_of_the_current_revision_that_is_missing_is_invalid_params(self, mcp: Mcp) -> None:
        for uri in ("outfeed://events/none", "outfeed://events/", "file:///etc/passwd"):
            assert mcp.error("resources/read", CURRENT, uri=uri) == (400, INVALID_PARAMS, f"no resource {uri!r}")


@pytest.fixture
def logged(database: Database) -> None:
    for number in range(5):
        log_event("task.step", "ci", "t-1", "a-1", {"n": number}, id=f"e{number}")


@pytest.mark.usefixtures("logged")
class TestReading:
    def test_a_search_has_the_filters_and_pages_of_the_api(self, mcp: Mcp) -> None:
        first = mcp.tool("search_events", source="ci", limit=2)
        second = mcp.tool("search_events", source="ci", limit=2, cursor=first["next"])

        assert [event["id"] for event in first["events"] + second["events"]] == ["e4", "e3", "e2", "e1"]
        assert [event["id"] for event in mcp.tool("search_events", q="data.n:3")["events"]] == ["e3"]
        assert mcp.tool("search_events", **{"from": "2999-01-01T00:00:00Z"})["events"] == []
        assert mcp.tool("search_events", to="2000-01-01T00:00:00Z")["events"] == []

    @pytest.mark.parametrize(("name", "argument"), [("task_story", "task_id"), ("agent_story", "agent_id")])
    def test_a_story_is_told_in_order(self, mcp: Mcp, name: str, argument: str) -> None:
        value = {"task_id": "t-1", "agent_id": "a-1"}[argument]
        newest = mcp.tool(name, **{argument: value, "limit": 3})
        before = mcp.tool(name, **{argument: value, "cursor": newest["next"]})

        assert [event["id"] for event in before["events"] + newest["events"]] == [f"e{n}" for n in range(5)]
        assert mcp.tool(name, **{argument: "other"})["events"] == []

    def test_an_answer_says_where_the_feed_continues_and_that_events_are_untrusted(self, mcp: Mcp) -> None:
        for name, arguments in (("search_events", {}), ("get_event", {"id": "e1"}), ("summary", {"minutes": 5})):
            answer = mcp.tool(name, **arguments)
            assert next(iter(answer)) == "notice"
            assert "untrusted" in answer["notice"]
            assert answer["feed"]["after"] == 5

        log_event("a.later", "s", id="later")
        found = mcp.tool("wait_for_events", **answer["feed"], wait=0)
        assert [event["id"] for event in found["events"]] == ["later"]
        assert (found["verdict"], found["cursor"]) == ("resumed", 6)
        assert "untrusted" in found["notice"]

    def test_a_wait_reports_a_cursor_of_another_history_and_one_that_was_pruned(
        self, mcp: Mcp, database: Database
    ) -> None:
        head = mcp.tool("wait_for_events", wait=0)
        assert (head["verdict"], head["events"], head["cursor"]) == ("live", [], 5)
        assert mcp.tool("wait_for_events", after=3, epoch="other")["verdict"] == "reset"
        with database.transaction() as connection:
            connection.execute("DELETE FROM outbox WHERE seq <= 3")
        gap = mcp.tool("wait_for_events", after=1, epoch=head["epoch"], wait=0)
        assert (gap["verdict"], gap["missing"]) == ("gap", {"from": 2, "to": 3})
        assert [event["seq"] for event in gap["events"]] == [4, 5]

    @pytest.mark.parametrize(
        ("name", "arguments", "told"),
        [
            ("search_events", {"limit": 0}, "limit: Input should be greater than or equal to 1"),
            ("search_events", {"limit": "many"}, "limit: Input should be a valid integer"),
            ("search_events", {"from": "soon"}, "from: Input should be a valid datetime"),
            ("search_events", {"id": "e1"}, "id: search_events takes event_type, source"),
            ("search_events", {"q": "source:a", "source": "b"}, "q: has a condition on source"),
            ("get_event", {}, "id: is missing"),
            ("get_event", {"id": 5}, "id: Input should be a valid string"),
            ("task_story", {"task_id": None}, "task_id: is missing"),
            ("summary", {"minutes": -1}, "minutes: Input should be greater than 0"),
            ("wait_for_events", {"wait": 61, "after": 0}, "wait: Input should be less than or equal to 60"),
            ("wait_for_events", {"after": 3}, "after: 3 requires the 'epoch' of that seq"),
            ("wait_for_events", {"types": ["*"]}, "types.0: String should match pattern"),
            ("wait_for_events", {"consumer": "c"}, "consumer: wait_for_events takes types"),
        ],
    )
    def test_bad_arguments_are_an_error_that_the_model_can_read(
        self, mcp: Mcp, name: str, arguments: dict[str, Any], told: str
    ) -> None:
        assert mcp.tool_error(name, **arguments).startswith(told)

    def test_an_unknown_tool_is_an_error_of_the_protocol(self, mcp: Mcp) -> None:
        assert mcp.error("tools/call", name="drop_table", arguments={})[:2] == (200, INVALID_PARAMS)

    def test_resources_are_one_page_for_clients_that_read_all_pages(self, mcp: Mcp) -> None:
        for number in range(60):
            log_event("a.b", "s", id=f"a/ü {number}")
        first = mcp.result("resources/list")

        assert (len(first["resources"]), "nextCursor" in first) == (50, False)
        assert mcp.error("resources/list", cursor="1")[:2] == (200, INVALID_PARAMS)
        assert first["resources"][0]["uri"] == "outfeed://events/a%2F%C3%BC%2059"
        text = mcp.result("resources/read", uri=first["resources"][0]["uri"])["contents"][0]["text"]
        assert json.loads(text)["event"]["id"] == "a/ü 59"
        assert "untrusted" in json.loads(text)["notice"]


class TestWriting:
    def test_an_event_is_written_once_for_an_id(self, mcp: Mcp) -> None:
        arguments = {"event_type": "deploy.done", "data": {"v": 1}, "id": "d1", "task_id": "t", "agent_id": "a"}
        first, again = mcp.tool("log_event", **arguments), mcp.tool("log_event", **arguments)

        (event,) = list_events()
        assert (first["is_new"], again["is_new"]) == (True, False)
        assert first["seq"] == again["seq"] == 1
        assert (event.source, event.task_id, event.agent_id, event.data) == ("tests", "t", "a", {"v": 1})
        assert "already exists with different content" in mcp.tool_error("log_event", **arguments | {"data": 2})

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            ({}, "event_type: is missing"),
            ({"event_type": "Deploy"}, "event_type"),
            ({"event_type": "a.b", "source": ""}, "source"),
            ({"event_type": "a.b", "source": 5}, "source: Input should be a valid string"),
            ({"event_type": "a.b", "timestamp": "soon"}, "timestamp"),
            ({"event_type": "a.b", "id": "x" * 201}, "id"),
            ({"event_type": "a.b", "data": "x" * 70_000}, "data"),
            ({"event_type": "a.b", "extra": 1}, "extra: log_event takes event_type, data"),
        ],
    )
    def test_a_bad_event_is_not_written_and_the_error_names_the_field(
        self, mcp: Mcp, arguments: dict[str, Any], told: str
    ) -> None:
        assert mcp.tool_error("log_event", **arguments).startswith(told)
        assert list_events() == []

    def test_secrets_are_redacted_before_an_event_is_written(self, mcp: Mcp) -> None:
        mcp.tool(
            "log_event", event_type="a.b", data={"password": "hunter2", "text": "key AKIAIOSFODNN7EXAMPLE"}, id="x"
        )

        assert mcp.tool("get_event", id="x")["event"]["data"] == {"password": "[redacted]", "text": "key [redacted]"}

    def test_an_erased_event_is_gone_from_every_tool(self, mcp: Mcp, outfeed: Any) -> None:
        mcp.tool("log_event", event_type="a.b", data="personal", id="x")
        assert outfeed("prune", "--id", "x", "--yes").exit_code == 0

        assert mcp.tool_error("get_event", id="x") == "no event with the id 'x'"
        found = mcp.tool("wait_for_events", after=0, wait=0)
        assert "personal" not in json.dumps([found, mcp.tool("search_events")])


VALUES = (
    None, "", "x", "\0", "\ud800", "\u202e", "x" * 5000, -1, 0, 2**63, 2**70, 1e308, True, [], {}, ["x"], [["x"]],
    {"a": {"b": 1}}, "2026-01-01", "task.*", "*", '"', "a:b", "%00",
)  # fmt: skip


@pytest.mark.parametrize("name", tools.TOOLS)
def test_no_value_of_an_argument_fails_a_tool(api: Api, mcp: Mcp, name: str) -> None:
    api.services.hub.close()  # a wait would last
    tool = tools.TOOLS[name]
    for argument in tool.names:
        valid = {"event_type": "a.b", "id": "x", "task_id": "t", "agent_id": "a"}
        for value in VALUES:
            arguments = {required: valid[required] for required in tool.required} | {argument: value}
            found = mcp.result("tools/call", name=name, arguments=arguments)
            assert found["content"][0]["text"], (argument, value)


def test_rows_of_any_writer_fit_the_schemas(mcp: Mcp, database: Database) -> None:
    deep = "[" * 100 + "]" * 100
    rows = [
        ("'plain'", "'a.b'", "'s'", "'{\"n\": 1}'", "'2026-01-01T00:00:00Z'"),
        ("'deep'", "'a.b'", "'s'", f"'{deep}'", "'2026-01-01T00:00:00Z'"),
        ("'large'", "'a.b'", "'s'", "'\"' || hex(zeroblob(200000)) || '\"'", "'2026-01-01T00:00:00Z'"),
        ("'odd'", "'no type'", "x'ff00'", "x'ff'", "'yesterday'"),
        ("5", "7", "1.5", "9e999", "0"),
    ]
    with database.transaction() as connection:
        for row in rows:
            connection.execute(
                f"INSERT INTO event_log (id, event_type, source, data, timestamp) VALUES ({', '.join(row)})"
            )
    schemas = {tool["name"]: tool["outputSchema"] for tool in mcp.result("tools/list")["tools"]}

    found = mcp.tool("wait_for_events", after=0, wait=0)
    jsonschema.validate(found, schemas["wait_for_events"])
    assert len(found["events"]) == len(mcp.tool("search_events")["events"]) == len(rows)
    jsonschema.validate(mcp.tool("search_events"), schemas["search_events"])
    jsonschema.validate(mcp.tool("summary", minutes=60 * 24 * 366 * 9), schemas["summary"])
    for row in rows:
        event_id = row[0].strip("'")
        jsonschema.validate(mcp.tool("get_event", id=event_id), schemas["get_event"])
        mcp.result("resources/read", uri=f"outfeed://events/{event_id}")


def test_each_tool_says_what_it_does_and_takes_the_names_of_the_api(mcp: Mcp) -> None:
    for tool in mcp.result("tools/list", CURRENT)["tools"]:
        is_reader = tool["name"] != "log_event"
        assert tool["annotations"]["readOnlyHint"] is is_reader
        assert tool["annotations"]["openWorldHint"] is False
        assert tool["inputSchema"]["additionalProperties"] is False
        assert set(tool["inputSchema"]["properties"]) <= {
            "event_type", "source", "task_id", "agent_id", "text", "q", "from", "to", "limit", "cursor", "after",
            "epoch", "types", "wait", "id", "data", "timestamp", "minutes",
        }  # fmt: skip
        assert ("notice" in tool["outputSchema"]["properties"]) is is_reader
