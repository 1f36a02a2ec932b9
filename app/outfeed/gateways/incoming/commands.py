"""`outfeed address` and `outfeed mapping`: what comes in without a token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

import click

from outfeed import clock
from outfeed.cli import BY, show
from outfeed.cli.links import server_url
from outfeed.cli.values import checked
from outfeed.config import settings
from outfeed.config.addresses import LOCAL_LINK, is_local_url
from outfeed.errors import InvalidMapping, InvalidRequest, UnknownName
from outfeed.gateways.incoming import mapping_file, new_address, store
from outfeed.gateways.incoming.topic import check_topic
from outfeed.store import database as db
from outfeed.text import check_short_name

if TYPE_CHECKING:
    from outfeed.gateways.incoming.mapping import FieldTable


def _table(name: str) -> FieldTable:
    tables = new_address.mappings(settings())
    if name not in tables:
        raise UnknownName(f"mapping {name!r:.80} not found; `outfeed mapping list` shows all mappings")
    return tables[name]


@click.group()
def address() -> None:
    """Manage write-only addresses: URLs for events.

    \b
    Example:
      outfeed address add backups
    """


@address.command()
@click.argument("name", callback=checked(check_short_name))
@click.option("--topic", callback=checked(check_topic), help="Type of the events, or its first word.  [default: NAME]")
@click.option("--source", callback=checked(new_address.check_source), help="Source of the events.  [default: NAME]")
@click.option(
    "--types", callback=checked(new_address.types), default="", help="Only these types: backups.*, comma-separated."
)
@click.option("--as", "mapping_name", metavar="MAPPING", help="Read requests by this mapping, such as github.")
@click.option("--secret-file", type=click.File(), help="A file with the secret that the sender signs with.")
@click.option("--unsigned", is_flag=True, help="Accept requests without a signature.")
def add(
    name: str,
    topic: str | None,
    source: str | None,
    types: tuple[str, ...],
    mapping_name: str | None,
    secret_file: TextIO | None,
    unsigned: bool,
) -> None:
    """Create the write-only address NAME and print its URL once.

    Every client that knows the URL can write events under the topic, and nothing else. With a mapping whose sender
    signs its requests, also prints the secret for the sender's settings. Changes take effect immediately.

    \b
    Example:
      outfeed address add repo --as github
    """
    table = _table(mapping_name) if mapping_name else None
    signing_secret = _signing_secret(table, secret_file, unsigned)
    secret = store.add(
        db.default(),
        name,
        topic=topic or _default_topic(mapping_name or name),
        source=source or name,
        types=types,
        mapping=mapping_name,
        signing_secret=signing_secret,
        by=BY,
    )
    url = server_url()
    if is_local_url(url):
        show.warn(LOCAL_LINK)
    show.line(f"{url}/in/at/{secret}")
    if signing_secret and secret_file is None:
        show.line(signing_secret)
    show.say(f"Added the write-only address {name}. {_remark(signing_secret, secret_file)}", err=True)


def _default_topic(name: str) -> str:
    try:
        return new_address.default_topic(name)
    except InvalidRequest:
        raise click.UsageError(f"{name} can't be a topic; pass --topic, such as --topic backups") from None


def _signing_secret(table: FieldTable | None, file: TextIO | None, unsigned: bool) -> str | None:
    if file is not None and (unsigned or not new_address.is_signed(table)):
        raise click.UsageError("--secret-file needs a mapping with a signature, and excludes --unsigned.")
    if file is None:
        return new_address.signing_secret(table, None, is_unsigned=unsigned)
    with file:
        try:
            return new_address.signing_secret(table, file.read(), is_unsigned=unsigned)
        except ValueError as error:
            raise click.UsageError(f"--secret-file: {error}") from None


def _remark(signing_secret: str | None, file: TextIO | None) -> str:
    if signing_secret is None:
        return "The URL is a secret, and is not shown again."
    if file is not None:
        return "Its requests must be signed with the secret of the file."
    return "The URL and the secret, with which the sender signs, are not shown again."


@address.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print a JSON array, one address per line.")
def list_(is_json: bool) -> None:
    """Show every write-only address, without its URL and secret.

    \b
    Example:
      outfeed address list
    """
    found = store.list_addresses(db.default())
    if is_json:
        names = ("name", "topic", "source", "types", "mapping", "created_at", "last_used_at")
        show.put(
            show.as_json_lines(show.fields(one, names) | {"is_signed": one.signing_secret is not None} for one in found)
        )
        return
    columns = ("Name", "Topic", "Source", "Types", "Mapping", "Signed", "Created", "Last used")
    show.listing("address", columns, [_row(one) for one in found], plural="addresses")


def _row(one: store.Address) -> tuple[str, ...]:
    signed = "yes" if one.signing_secret else "no"
    texts = (one.name, one.topic, one.source, ",".join(one.types) or "all", one.mapping or "none", signed)
    return *texts, clock.ago(one.created_at), clock.ago(one.last_used_at)


@address.command()
@click.argument("name", callback=checked(check_short_name))
def revoke(name: str) -> None:
    """Revoke the write-only address NAME. Its URL is invalid at once.

    \b
    Example:
      outfeed address revoke backups
    """
    store.revoke(db.default(), name, by=BY)
    show.say(f"Revoked the write-only address {name}.")


# --- mappings ---------------------------------------------------------------------------------------------------------


@click.group()
def mapping() -> None:
    """Show and check the mappings of incoming webhooks.

    \b
    Example:
      outfeed mapping check github payload.json --header 'X-GitHub-Event: push'
    """


@mapping.command("list")
def list_mappings() -> None:
    """Show every mapping: those of Outfeed and of the operator's file.

    \b
    Example:
      outfeed mapping list
    """
    found = mapping_file.load(settings().incoming_mappings)
    rows = [(name, table.signature.value, table.description) for name, table in found.items()]
    show.listing("mapping", ("Name", "Signature", "Description"), rows)


def _headers(values: tuple[str, ...]) -> Mapping[str, str]:
    found = {}
    for value in values:
        name, colon, text = value.partition(":")
        if not colon:
            raise ValueError(f"must be like 'X-GitHub-Event: push' (got {value!r:.80})")
        found[name.strip().lower()] = text.strip()
    return found


@mapping.command()
@click.argument("name")
@click.argument("payload", type=click.File("rb"))
@click.option(
    "--header",
    "headers",
    multiple=True,
    callback=checked(_headers),
    metavar="'NAME: VALUE'",
    help="A header of the request; repeatable.",
)
@click.option("--topic", callback=checked(check_topic), help="The topic of the request.  [default: NAME]")
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Use this mapping file instead of the configured one.",
)
def check(name: str, payload: BinaryIO, headers: Mapping[str, str], topic: str | None, path: Path | None) -> None:
    """Show the events that mapping NAME makes of the file PAYLOAD.

    PAYLOAD is the JSON body of a request. Nothing is written.

    \b
    Example:
      outfeed mapping check alertmanager payload.json
    """
    from outfeed.events import make_event
    from outfeed.gateways.incoming.template import Payload

    tables = mapping_file.load(path or settings().incoming_mappings)
    if name not in tables:
        raise UnknownName(f"mapping {name!r:.80} not found; there are {', '.join(tables)}")
    with payload:
        try:
            body = json.loads(payload.read())
        except (ValueError, RecursionError) as error:
            raise InvalidMapping(f"{payload.name} is not JSON: {error}") from None
    found = tables[name].events(Payload(topic or _default_topic(name), name, headers, body))
    for event in found:
        made, _ = make_event(**event, max_event_bytes=settings().max_event_bytes)
        show.put(show.as_json(made.as_dict()))
    show.say(f"The mapping {name} makes {show.count(len(found), 'event')}. Nothing was written.", err=True)
