"""Definitions of watches, checked. No I/O.

They come from options, a TOML file or the database.

Shorthands (`only_changes`, `states`, `where`, `message`) become rules here, so that every later step knows rules only.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from outfeed.config.values import MAX_DAYS
from outfeed.errors import InvalidWatch
from outfeed.events import MAX_NAME_CHARS, MAX_TYPE_CHARS, TYPE_PATTERN
from outfeed.watch.table import WatchedTable, folded, is_secret

INSERT, UPDATE, DELETE = "insert", "update", "delete"
OPERATIONS = (INSERT, UPDATE, DELETE)
DEFAULT_TYPES = {INSERT: "created", UPDATE: "updated", DELETE: "deleted"}
EXISTING, GAP = "existing", "gap"
LEVELS = ("info", "warning", "error")
DEFAULT_KEEP_DAYS = 30
MAX_RULES, MAX_VALUES = 50, 100
MAX_ICON_CHARS, MAX_LABEL_CHARS, MAX_PLACES = 16, 200, 20
RESERVED_STATES = frozenset({*DEFAULT_TYPES.values(), EXISTING, GAP})
# First words of types that Outfeed keeps for itself, and those of the swarm, which no default takes.
RESERVED_WORDS = frozenset({"access", "system", "outfeed", "alert"})
SWARM_WORDS = frozenset({"task", "agent", "bid", "tool", "auction"})
_PREFIX_PATTERN = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
_MAX_INTEGER = 2**63
Value = str | int | float
Tests = tuple[tuple[str, tuple[Value, ...]], ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: the first that matches a change gives the event its *type*.

    *when* and *was* are pairs of column and values. *changed* is None for the columns that the event shows.
    """

    on: str
    type: str
    when: Tests = ()
    was: Tests = ()
    changed: tuple[str, ...] | None = None
    icon: str | None = None
    label: str | None = None
    level: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the rule reads."""
        return (*(name for name, _ in self.when + self.was), *(self.changed or ()))

    @property
    def display(self) -> tuple[str | None, str | None, str | None]:
        return self.icon, self.label, self.level


@dataclass(frozen=True, slots=True)
class Definition:
    """A watch: a table, and what is reported of it.

    *columns* is None for all but *excluded*. *source* is a text and *source_column* a column; without both the source
    of an event is the table's name. *keep_days* 0 is for ever.
    """

    table: str
    type: str
    rules: tuple[Rule, ...]
    columns: tuple[str, ...] | None = None
    excluded: tuple[str, ...] = ()
    show: tuple[str, ...] = ()
    no_key: bool = False
    source: str | None = None
    source_column: str | None = None
    task_id: str | None = None
    agent_id: str | None = None
    keep_days: float = DEFAULT_KEEP_DAYS
    from_start: bool = False

    @property
    def types(self) -> frozenset[str]:
        """Every type that the watch produces."""
        return frozenset({*(rule.type for rule in self.rules), f"{self.type}.{EXISTING}", f"{self.type}.{GAP}"})

    @property
    def mapped(self) -> tuple[str, ...]:
        """The columns that give an event its source, task and agent."""
        return tuple(name for name in (self.source_column, self.task_id, self.agent_id) if name is not None)

    def rules_on(self, operation: str) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if rule.on == operation)

    def selects(self, column: str) -> bool:
        """Return whether events have *column*, be it redacted."""
        if self.columns is not None:
            return _is_in(column, self.columns)
        return not _is_in(column, self.excluded)

    def shows(self, column: str) -> bool:
        """Return whether *column* is shown though its name is that of a secret."""
        return _is_in(column, self.show)

    def as_json(self) -> str:
        """Return all but table and type as JSON, for `outfeed_watch.options`.

        Equal definitions give equal texts.
        """
        values = {
            each.name: [_rule_value(rule) for rule in self.rules] if each.name == "rules" else getattr(self, each.name)
            for each in fields(self)
            if each.name not in ("table", "type")
        }
        return json.dumps(values, ensure_ascii=False, sort_keys=True)


def from_json(table: str, type_: str, text: str) -> Definition:
    """Return the definition whose `as_json` is *text*.

    Keys that it does not know are passed over.
    """
    values = json.loads(text)
    known = {each.name for each in fields(Definition)}
    options = {name: _frozen(value) for name, value in values.items() if name in known}
    options["rules"] = tuple(Rule(**{name: _frozen(part) for name, part in rule.items()}) for rule in values["rules"])
    return Definition(table=table, type=type_, **options)


def _rule_value(rule: Rule) -> dict[str, Any]:
    values = {each.name: getattr(rule, each.name) for each in fields(rule)}
    return {name: value for name, value in values.items() if value not in (None, ())}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _is_in(name: str, names: Iterable[str]) -> bool:
    return folded(name) in map(folded, names)


# --- from options and files -------------------------------------------------------------------------------------------

_RULE_KEYS = ("on", "when", "was", "changed", "type", "icon", "label", "level")
_WATCH_KEYS = (
    "table", "as", "columns", "except", "show", "no_key", "source", "task_id", "agent_id", "keep_days", "from_start",
    "only_changes", "rules", "states", "where", "message",
)  # fmt: skip


def from_toml(text: str) -> list[Definition]:
    """Return the watches of a TOML file.

    Raises InvalidWatch, which names the watch and the key.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidWatch(f"the file is not TOML: {error}") from error
    if unknown := sorted(set(found) - {"watch"}):
        raise InvalidWatch(f"unknown key {unknown[0]!r:.80}; the file has tables [[watch]] only")
    watches = found.get("watch", [])
    if not isinstance(watches, list) or not all(isinstance(each, dict) for each in watches):
        raise InvalidWatch("each watch is a table [[watch]], with two brackets")
    definitions = [_numbered(number, each) for number, each in enumerate(watches, 1)]
    check_together(definitions)
    return definitions


def _numbered(number: int, values: Mapping[str, Any]) -> Definition:
    try:
        return from_values(values)
    except InvalidWatch as error:
        table = values.get("table")
        where = f"watch {number}" + (f" ({table})" if isinstance(table, str) else "")
        raise InvalidWatch(f"{where}: {error}") from error


def from_values(values: Mapping[str, Any]) -> Definition:
    """Return the watch that the keys of a `[[watch]]` describe.

    Raises InvalidWatch.
    """
    _refuse_unknown(values, _WATCH_KEYS, "")
    table = _text(values, "table")
    if not table:
        raise InvalidWatch("table: is missing")
    type_ = _prefix(values, table)
    if "columns" in values and "except" in values:
        raise InvalidWatch("columns, except: only one of them can be given")
    source, source_column = _source(values.get("source"))
    definition = Definition(
        table=table,
        type=type_,
        rules=_rules(values, type_),
        columns=_names(values, "columns") if "columns" in values else None,
        excluded=_names(values, "except"),
        show=_names(values, "show"),
        no_key=_flag(values, "no_key"),
        source=source,
        source_column=source_column,
        task_id=_text(values, "task_id"),
        agent_id=_text(values, "agent_id"),
        keep_days=_days(values.get("keep_days", DEFAULT_KEEP_DAYS)),
        from_start=_flag(values, "from_start"),
    )
    _check_rules(definition)
    return definition


def check_together(definitions: Sequence[Definition]) -> None:
    """Raise InvalidWatch if two watches share a table or a type."""
    tables: dict[str, Definition] = {}
    owners: dict[str, Definition] = {}
    for each in definitions:
        if folded(each.table) in tables:
            raise InvalidWatch(f"table {each.table}: is watched twice")
        tables[folded(each.table)] = each
        for type_ in sorted(each.types | {each.type}):
            if type_ in owners:
                raise InvalidWatch(f"{type_}: {owners[type_].table} and {each.table} would both produce this type")
            owners[type_] = each


def derived(name: str) -> str:
    """Return *name* as a word of a type.

    It is lower-case, other characters become `_`, and a first non-letter gets the prefix `t_`.
    """
    word = re.sub(r"[^a-z0-9_]", "_", name.lower())
    return word if re.match(r"[a-z]", word) else f"t_{word}"


def _prefix(values: Mapping[str, Any], table: str) -> str:
    given = _text(values, "as")
    if given is None:
        word = derived(table)
        return f"table_{word}" if word in SWARM_WORDS | RESERVED_WORDS else word
    if not _PREFIX_PATTERN.fullmatch(given):
        raise InvalidWatch(f"as: must be lower-case words joined by dots, like shop.order, got {given!r:.80}")
    _refuse_reserved("as", given)
    return given


def _refuse_reserved(key: str, type_: str) -> None:
    word = type_.partition(".")[0]
    if word in RESERVED_WORDS:
        raise InvalidWatch(f"{key}: types that begin with {word} are Outfeed's own, got {type_!r:.80}")


def _rules(values: Mapping[str, Any], type_: str) -> tuple[Rule, ...]:
    only_changes = _names(values, "only_changes") if "only_changes" in values else None
    if "rules" in values:
        if mixed := [key for key in ("states", "where", "message") if key in values]:
            raise InvalidWatch(f"{mixed[0]}: can't be combined with rules")
        found = values["rules"]
        if not isinstance(found, list) or not found:
            raise InvalidWatch("rules: must be a list with at least one rule")
        rules = [_numbered_rule(number, each) for number, each in enumerate(found, 1)]
    else:
        rules = _shorthand_rules(values, type_)
    if only_changes is None:
        return tuple(rules)
    return tuple(
        replace(rule, changed=only_changes) if rule.on == UPDATE and rule.changed is None else rule for rule in rules
    )


def _numbered_rule(number: int, values: Any) -> Rule:
    try:
        return _rule(values)
    except InvalidWatch as error:
        raise InvalidWatch(f"rule {number}: {error}") from error


def _rule(values: Any) -> Rule:
    if not isinstance(values, dict):
        raise InvalidWatch('must be a table like {on = "insert", type = "order.created"}')
    _refuse_unknown(values, _RULE_KEYS, "")
    on, type_ = values.get("on"), values.get("type")
    if on not in OPERATIONS:
        raise InvalidWatch(f"on: must be insert, update or delete, got {on!r:.80}")
    if type_ is None:
        raise InvalidWatch("type: is missing")
    for key in ("was", "changed"):
        if key in values and on != UPDATE:
            raise InvalidWatch(f'{key}: only a rule with on = "update" can have it')
    return Rule(
        on=on,
        type=_type(type_),
        when=_tests(values, "when"),
        was=_tests(values, "was"),
        changed=_names(values, "changed") if "changed" in values else None,
        icon=_short(values, "icon", MAX_ICON_CHARS),
        label=_short(values, "label", MAX_LABEL_CHARS),
        level=_level(values),
    )


def _type(type_: Any) -> str:
    if not isinstance(type_, str) or not TYPE_PATTERN.fullmatch(type_):
        raise InvalidWatch(f"type: must be lower-case words joined by dots, like order.created, got {type_!r:.80}")
    if len(type_) > MAX_TYPE_CHARS:
        raise InvalidWatch(f"type: must have at most {MAX_TYPE_CHARS} characters, got {len(type_):,}")
    _refuse_reserved("type", type_)
    return type_


def _shorthand_rules(values: Mapping[str, Any], type_: str) -> list[Rule]:
    states, where = _one_test(values, "states"), _one_test(values, "where")
    if states and where and folded(states[0][0]) == folded(where[0][0]):
        raise InvalidWatch(f"states, where: must name different columns, got {states[0][0]} for both")
    rules = _state_rules(states, type_)
    rules += [Rule(on, f"{type_}.{word}") for on, word in DEFAULT_TYPES.items()]
    if where:
        rules = [rule for each in rules for rule in _limited(each, where)]
    label = _short(values, "message", MAX_LABEL_CHARS)
    return [replace(rule, label=label) for rule in rules]


def _state_rules(states: Tests, type_: str) -> list[Rule]:
    rules: list[Rule] = []
    for column, values in states:
        for value in values:
            word = derived(str(value))
            if word in RESERVED_STATES:
                raise InvalidWatch(f"states: {value!r:.80} would give {type_}.{word}, which has another meaning")
            if any(rule.type == f"{type_}.{word}" for rule in rules):
                raise InvalidWatch(f"states: two values would give {type_}.{word}; use rules")
            rules.append(Rule(UPDATE, f"{type_}.{word}", when=((column, (value,)),), changed=(column,)))
    return rules


def _limited(rule: Rule, where: Tests) -> list[Rule]:
    """Return *rule* with the test *where*.

    An update is tested before and after, so that a row that leaves is reported.
    """
    with_when = replace(rule, when=rule.when + where)
    return [with_when, replace(rule, was=rule.was + where)] if rule.on == UPDATE else [with_when]


def _check_rules(definition: Definition) -> None:
    if len(definition.rules) > MAX_RULES:
        raise InvalidWatch(f"rules: at most {MAX_RULES} are allowed, got {len(definition.rules):,}")
    own = {f"{definition.type}.{EXISTING}", f"{definition.type}.{GAP}"}
    displays: dict[str, Rule] = {}
    for rule in definition.rules:
        _type(rule.type)
        if rule.type in own:
            raise InvalidWatch(f"type: {rule.type} has another meaning in this watch")
        if displays.setdefault(rule.type, rule).display != rule.display:
            raise InvalidWatch(f"type: rules with {rule.type} must have the same icon, label and level")
    _type(f"{definition.type}.{EXISTING}")


# --- single values ----------------------------------------------------------------------------------------------------


def _refuse_unknown(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    if unknown := sorted(set(values) - set(known)):
        raise InvalidWatch(f"{where}unknown key {unknown[0]!r:.80}; known are {', '.join(known)}")


def _text(values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidWatch(f"{key}: must be text, got {value!r:.80}")
    return value


def _short(values: Mapping[str, Any], key: str, most: int) -> str | None:
    text = _text(values, key)
    if text is not None and len(text) > most:
        raise InvalidWatch(f"{key}: must have at most {most} characters, got {len(text):,}")
    if text is not None and text.count("{") > MAX_PLACES:
        raise InvalidWatch(f"{key}: must have at most {MAX_PLACES} places, got {text.count('{'):,}")
    return text


def _level(values: Mapping[str, Any]) -> str | None:
    level = _text(values, "level")
    if level is not None and level not in LEVELS:
        raise InvalidWatch(f"level: must be info, warning or error, got {level!r:.80}")
    return level


def _flag(values: Mapping[str, Any], key: str) -> bool:
    value = values.get(key, False)
    if not isinstance(value, bool):
        raise InvalidWatch(f"{key}: must be true or false, got {value!r:.80}")
    return value


def _names(values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = values.get(key, [])
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) and each for each in value):
        raise InvalidWatch(f"{key}: must be a list of columns, got {value!r:.80}")
    if key in values and not value:
        raise InvalidWatch(f"{key}: names no column")
    return tuple(value)


def _days(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_DAYS:
        raise InvalidWatch(f"keep_days: must be a number of days from 0 (for ever) to {MAX_DAYS}, got {value!r:.80}")
    return value


def _source(value: Any) -> tuple[str | None, str | None]:
    """Return the text and the column; one of them is None."""
    if isinstance(value, dict):
        column = value.get("column")
        if set(value) != {"column"} or not isinstance(column, str) or not column:
            raise InvalidWatch(f'source: must be text or {{column = "name"}}, got {value!r:.80}')
        return None, column
    text = _text({"source": value}, "source")
    if text is not None and len(text) > MAX_NAME_CHARS:
        raise InvalidWatch(f"source: must have at most {MAX_NAME_CHARS} characters, got {len(text):,}")
    return text, None


def _one_test(values: Mapping[str, Any], key: str) -> Tests:
    tests = _tests(values, key)
    if len(tests) > 1:
        raise InvalidWatch(f"{key}: must name one column, got {len(tests)}")
    return tests


def _tests(values: Mapping[str, Any], key: str) -> Tests:
    value = values.get(key, {})
    if not isinstance(value, dict):
        raise InvalidWatch(f'{key}: must be like {{status = ["paid"]}}, got {value!r:.80}')
    return tuple((column, _values(f"{key}.{column}", found)) for column, found in value.items())


def _values(key: str, found: Any) -> tuple[Value, ...]:
    if not isinstance(found, list | tuple) or not found:
        raise InvalidWatch(f"{key}: must be a list of values, got {found!r:.80}")
    if len(found) > MAX_VALUES:
        raise InvalidWatch(f"{key}: at most {MAX_VALUES} values are allowed, got {len(found):,}")
    return tuple(_value(key, each) for each in found)


def _value(key: str, value: Any) -> Value:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and -_MAX_INTEGER <= value < _MAX_INTEGER:
        return value
    if isinstance(value, float) and abs(value) != float("inf") and value == value:
        return value
    if isinstance(value, str) and "\0" not in value:
        return value
    raise InvalidWatch(f"{key}: a value must be text, a number of 64 bits, true or false, got {value!r:.80}")


# --- definition and table ---------------------------------------------------------------------------------------------


def missing(definition: Definition, table: WatchedTable) -> list[str]:
    """Return the columns that the definition names and the table lacks."""
    named = (*(definition.columns or ()), *definition.excluded, *definition.show, *definition.mapped)
    named += tuple(name for rule in definition.rules for name in rule.columns)
    return list(dict.fromkeys(name for name in named if table.column(name) is None))


def fitted(definition: Definition, table: WatchedTable) -> Definition:
    """Return the definition as far as the table has its columns.

    A rule that tests a missing column is dropped, `changed` loses it, and an option that names it is ignored.
    """

    def there(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if table.column(name) is not None)

    def own(name: str | None) -> str | None:
        return name if name is not None and table.column(name) is not None else None

    rules = [
        rule if rule.changed is None else replace(rule, changed=there(rule.changed))
        for rule in definition.rules
        if all(table.column(name) is not None for name, _ in rule.when + rule.was)
    ]
    return replace(
        definition,
        rules=tuple(rules),
        columns=None if definition.columns is None else there(definition.columns),
        source_column=own(definition.source_column),
        task_id=own(definition.task_id),
        agent_id=own(definition.agent_id),
    )


def check_table(definition: Definition, table: WatchedTable, secrets: Iterable[str]) -> None:
    """Raise InvalidWatch if the definition does not fit the table.

    *secrets* are the words that hide a column.
    """
    words = tuple(secrets)
    if lacking := missing(definition, table):
        raise InvalidWatch(f"{table.name}: has no column {', '.join(lacking)}")

    def is_hidden(name: str) -> bool:
        return is_secret(name, words) and not definition.shows(name)

    for rule in definition.rules:
        for name in rule.columns:
            found = table.column(name)
            if found is not None and found.generated:
                raise InvalidWatch(f"{table.name}: {name} is a generated column, which no rule can read")
    for name in definition.mapped:
        if is_hidden(name):
            raise InvalidWatch(f"{table.name}: {name} is hidden, so it can't be the source, task or agent of an event")
    unseen = [name for name in table.primary_key if is_hidden(name) or not definition.selects(name)]
    if unseen and not definition.no_key:
        raise InvalidWatch(
            f"{table.name}: the key column {', '.join(unseen)} is hidden or excluded, so no event could name its row. "
            "Show it with --show, or accept events without a key with --no-key"
        )
