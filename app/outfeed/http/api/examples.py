"""Examples of the API: values of schemas, and calls in several languages."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode


def value_of(schema: dict[str, Any], shapes: dict[str, Any]) -> Any:
    """Return an example value that *schema* accepts.

    It is the schema's own example, or one made of its parts' examples. *shapes* are the schemas that a `$ref` may name.
    A field with a default and without an example is omitted.
    """
    if "examples" in schema:
        return schema["examples"][0]
    if "$ref" in schema:
        return value_of(shapes[schema["$ref"].rpartition("/")[2]], shapes)
    if "anyOf" in schema:
        parts = [part for part in schema["anyOf"] if "$ref" in part or "examples" in part]
        return value_of(parts[0], shapes) if parts else None
    if "properties" in schema:
        return _object_of(schema, shapes)
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "array":
        return [value_of(schema["items"], shapes)]
    raise ValueError(f"no example: {schema}")


def _object_of(schema: dict[str, Any], shapes: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value_of(field, shapes)
        for name, field in schema["properties"].items()
        if "examples" in field or name in schema.get("required", ())
    }


def query_of(parameters: list[dict[str, Any]]) -> str:
    """Return a query string of the parameters that have an example.

    Returns an empty string if there is none.
    """
    found = {
        one["name"]: one["schema"]["examples"][0]
        for one in parameters
        if one["in"] == "query" and "examples" in one["schema"]
    }
    return "?" + urlencode(found) if found else ""


def in_curl(method: str, url: str, body: Any = None) -> str:
    """Return the call as a shell command.

    The call has no body if *body* is None.
    """
    lines = ['curl -H "Authorization: Bearer $OUTFEED_TOKEN"']
    if method != "GET":
        lines[0] += f" -X {method}"
    if body is not None:
        lines += ["  -H 'Content-Type: application/json'", f"  -d '{json.dumps(body)}'"]
    return " \\\n".join([*lines, f"  '{url}'"])


def in_python(method: str, url: str, body: Any = None) -> str:
    """Return the call as a Python program that needs httpx."""
    more = "" if body is None else f"\n    json={body!r},"
    return f"""\
import os

import httpx

answer = httpx.request(
    {method!r},
    {url!r},
    headers={{"Authorization": f"Bearer {{os.environ['OUTFEED_TOKEN']}}"}},{more}
)
print(answer.status_code, answer.text)"""


def in_javascript(method: str, url: str, body: Any = None) -> str:
    """Return the call as a JavaScript module for Node 18 and later."""
    headers = ["Authorization: `Bearer ${process.env.OUTFEED_TOKEN}`"]
    more = ""
    if body is not None:
        headers.append('"Content-Type": "application/json"')
        more = f"\n  body: JSON.stringify({json.dumps(body)}),"
    return f"""\
const answer = await fetch({json.dumps(url)}, {{
  method: {json.dumps(method)},
  headers: {{ {", ".join(headers)} }},{more}
}});
console.log(answer.status, await answer.text());"""


def stream_in_curl(url: str) -> str:
    """Return a shell command that prints the endless answer as it arrives."""
    return f"curl -N -H \"Authorization: Bearer $OUTFEED_TOKEN\" \\\n  '{url}'"


def stream_in_python(url: str) -> str:
    """Return a Python program that prints each line of an endless answer."""
    return f"""\
import os

import httpx

headers = {{"Authorization": f"Bearer {{os.environ['OUTFEED_TOKEN']}}"}}
with httpx.stream("GET", {url!r}, headers=headers, timeout=60) as answer:
    for line in answer.iter_lines():
        print(line, flush=True)"""


def stream_in_javascript(url: str) -> str:
    """Return a JavaScript module that prints an endless answer in parts."""
    return f"""\
const answer = await fetch({json.dumps(url)}, {{
  headers: {{ Authorization: `Bearer ${{process.env.OUTFEED_TOKEN}}` }},
}});
for await (const text of answer.body.pipeThrough(new TextDecoderStream())) process.stdout.write(text);"""


LANGUAGES = {"curl": in_curl, "Python": in_python, "JavaScript": in_javascript}
STREAM_LANGUAGES = {"curl": stream_in_curl, "Python": stream_in_python, "JavaScript": stream_in_javascript}
