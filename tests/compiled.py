"""Routes and templates that are compiled once for all apps of a process.

Nearly every test has an app of its own, with the same routes and templates. To compile them takes 60 ms for the routes,
and 100 ms for the templates of a page.
"""

from __future__ import annotations

from typing import Any, ClassVar

from flask import Flask
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket
from werkzeug.routing import BaseConverter, Rule
from werkzeug.routing.rules import RulePart


class RuleOfMany(Rule):
    """A route that is compiled once for all apps."""

    _builders: ClassVar[dict[tuple[str, str, bool], Any]] = {}
    _parsed: ClassVar[dict[str, tuple[list[RulePart], list[tuple[bool, str]], dict[str, BaseConverter]]]] = {}

    def _parse_rule(self, rule: str) -> list[RulePart]:
        if rule not in self._parsed:
            count = len(self._trace)
            parts = list(super()._parse_rule(rule))
            self._parsed[rule] = (parts, self._trace[count:], dict(self._converters))
            return parts
        parts, trace, converters = self._parsed[rule]
        self._trace += trace
        self._converters |= converters
        self.arguments |= converters.keys()
        return parts

    def _compile_builder(self, append_unknown: bool = True) -> Any:
        key = (self.rule, str(self.defaults), append_unknown)
        if key not in self._builders:
            self._builders[key] = super()._compile_builder(append_unknown)
        return self._builders[key]


class CodeOfMany(BytecodeCache):
    """The code of each template, compiled once for all apps."""

    def __init__(self) -> None:
        self._code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill *bucket* with the code of its template, if there is any."""
        if code := self._code.get(bucket.key):
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep the code in *bucket*."""
        self._code[bucket.key] = bucket.bytecode_to_string()


Flask.url_rule_class = RuleOfMany
Flask.jinja_options = {"bytecode_cache": CodeOfMany()}
