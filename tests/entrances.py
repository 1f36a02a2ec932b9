"""Entrances: the places where text from outside comes in.

The program itself gives the lists. A test that goes over a list here tries a new route, parameter, field, header,
command or setting without another line.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote, urlencode

import click
from flask import Flask
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.routing import Rule

from outfeed.cli import main
from outfeed.http.api import openapi

PACKAGE = Path(__file__).parents[1] / "app" / "outfeed"
# Read by the server itself, gunicorn or Flask; the test of the list adds those that the code names.
HEADERS = {
    "Accept", "Accept-Encoding", "Authorization", "Content-Encoding", "Content-Type", "Cookie", "Host", "If-None-Match",
    "Last-Event-ID", "Origin", "Referer", "Sec-Fetch-Site", "X-CSRFToken", "X-Forwarded-For", "X-Forwarded-Host",
    "X-Forwarded-Proto", "X-Request-ID", "Access-Control-Request-Method", "Connection", "Upgrade", "Sec-WebSocket-Key",
    "Sec-WebSocket-Version", "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name",
}  # fmt: skip
_SAFE = {"HEAD", "OPTIONS"}


class Place(NamedTuple):
    """One place in the requests of a route.

    *kind* is path, query, field or form.
    """

    method: str
    rule: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.method} {self.rule} {self.kind} {self.name}"

    def request(self, value: str) -> tuple[str, str, dict[str, Any]]:
        """Return method, path and options of a request with *value* here.

        In a field, *value* is JSON.
        """
        path = re.sub(r"<(?:(\w+):)?(\w+)>", lambda found: self._argument(*found.groups(), value), self.rule)
        if self.kind == "query":
            path += f"?{self.name}={quote(value, safe='')}"
        if self.kind == "field":
            return self.method, path, {"data": f'{{"{self.name}": {value}}}', "content_type": "application/json"}
        return self.method, path, {"data": {self.name: value}} if self.kind == "form" else {}

    def _argument(self, converter: str | None, name: str, value: str) -> str:
        if self.kind == "path" and name == self.name:
            return quote(value, safe="")
        return "1" if converter == "int" else "known"


class Parameters(ImmutableMultiDict[str, str]):
    """The query or the form of a request.

    Records the names whose values are read.
    """

    names_read: ClassVar[set[str]] = set()

    def __getitem__(self, name: str) -> str:
        self.names_read.add(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.names_read.add(str(name))
        return super().__contains__(name)

    def getlist(self, name: str, *arguments: Any, **options: Any) -> Any:
        self.names_read.add(name)
        return super().getlist(name, *arguments, **options)


def _reading_all(method: str) -> Callable[..., Any]:
    def read(self: Parameters, *arguments: Any, **options: Any) -> Any:
        self.names_read.update(self.keys())
        return getattr(super(Parameters, self), method)(*arguments, **options)

    return read


for _method in ("items", "values", "lists", "listvalues"):
    setattr(Parameters, _method, _reading_all(_method))


def places_read(app: Flask, listed: Iterable[Place], visit: Callable[..., Any]) -> Iterator[Place]:
    """Yield the places whose names a view reads, and one other of a route.

    *visit* sends a request. Each route gets all names of *listed* at once, and again without those that it has read,
    until it reads none. It answers a request with one of the rest as it answers the last of these.
    """
    app.request_class = type("Request", (app.request_class,), {"parameter_storage_class": Parameters})
    names = defaultdict(set)
    for place in listed:
        if place.kind in ("query", "form"):
            names[place._replace(name="")].add(place.name)
        else:
            yield place
    for place in names:
        unread = names[place]
        while read := _names_read(place, unread, visit):
            unread -= read
            yield from (place._replace(name=name) for name in sorted(read))
        yield from (place._replace(name=name) for name in sorted(unread)[:1])


def _names_read(place: Place, names: set[str], visit: Callable[..., Any]) -> set[str]:
    Parameters.names_read.clear()
    method, path, options = place.request("")
    given = dict.fromkeys(names, "1")
    if place.kind == "query":
        path = f"{path.partition('?')[0]}?{urlencode(given)}"
    else:
        options = {"data": given}
    visit(method, path, kind=place.kind, **options)
    return Parameters.names_read & names


def places(app: Flask) -> list[Place]:
    """Return every place of every HTTP route."""
    return list(_places(app, openapi.document(app)["paths"], openapi.document(app)["components"]["schemas"]))


def _places(app: Flask, paths: dict[str, Any], schemas: dict[str, Any]) -> Iterator[Place]:
    for rule in app.url_map.iter_rules():
        described = paths.get(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), {})
        for method in sorted((rule.methods or set()) - _SAFE):
            operation = described.get(method.lower(), {})
            yield from (Place(method, rule.rule, "path", name) for name in sorted(rule.arguments))
            if method == "GET":
                given = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
                names = given if operation else page_parameters() if is_page(app, rule) else []
                yield from (Place(method, rule.rule, "query", name) for name in names)
            else:
                fields = sorted(_fields(operation.get("requestBody"), schemas))
                yield from (Place(method, rule.rule, "field", name) for name in fields or ["x"])
                if not operation:
                    yield from (Place(method, rule.rule, "form", name) for name in form_fields())


def is_page(app: Flask, rule: Rule) -> bool:
    """Return whether a page answers, which reads any query."""
    permission = app.view_functions[rule.endpoint].permission  # type: ignore[attr-defined]
    return permission.is_page and not rule.rule.startswith("/api/")


def _fields(schema: Any, schemas: dict[str, Any]) -> set[str]:
    """Return the names of all properties that *schema* leads to."""
    if isinstance(schema, list):
        return set().union(*(_fields(each, schemas) for each in schema))
    if not isinstance(schema, dict):
        return set()
    reference = schema.get("$ref", "").rpartition("/")[2]
    found = _fields(schemas[reference], schemas) if reference else set()
    return found | set(schema.get("properties", ())) | _fields(list(schema.values()), schemas)


def page_parameters() -> list[str]:
    """Return the names that the code and the forms give a page's query."""
    in_code = re.findall(r'request\.args(?:\.get\(|\[)"(\w+)"', _sources("*.py"))
    return sorted({*in_code, *form_fields(), "page", "live"})


def form_fields() -> list[str]:
    """Return the names of all fields of all forms."""
    in_forms = re.findall(r'<(?:input|select|textarea)[^>]* name="(\w+)"', _sources("*.html"))
    by_macros = re.findall(r'\(form, "(\w+)"', _sources("*.html"))
    in_code = re.findall(r'request\.form\.get\("(\w+)"', _sources("*.py"))
    return sorted({*in_forms, *by_macros, *in_code})


def headers_in_code() -> set[str]:
    """Return the names of all headers of requests that the code reads."""
    sources = _sources("*.py")
    named = re.findall(r'request\.headers(?:\.get\(|\[)"([\w-]+)"', sources)
    in_environ = re.findall(r"[\"']HTTP_((?:X|SEC)_\w+)[\"']", sources)
    return {name.lower() for name in (*named, *(each.replace("_", "-") for each in in_environ))}


@functools.cache
def _sources(pattern: str) -> str:
    return "\n".join(path.read_text() for path in sorted(PACKAGE.rglob(pattern)))


def commands(group: click.Group = main, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command that runs, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        elif command is not None:
            yield (*words, name), command
