"""Forms of pages: checked fields, and the page again with errors.

The checks are those of the commands: functions that return the value, or raise ValueError or InvalidRequest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from flask import request

from outfeed.errors import InvalidForm, InvalidRequest, OutfeedError
from outfeed.text import sentence

MAX_FIELD_CHARS = 10_000  # of a field that a page shows again


class Form:
    """The form of the request, which a template shows with its errors.

    Before the form is posted, its fields have *defaults*.
    """

    def __init__(self, **defaults: str | Sequence[str]) -> None:
        self.errors: dict[str, str] = {}
        self._defaults = defaults
        self._is_posted = request.method == "POST"

    @classmethod
    def unposted(cls, **defaults: str | Sequence[str]) -> Form:
        """Return the form with its defaults, if the request posts another form."""
        form = cls(**defaults)
        form._is_posted = False
        return form

    def value(self, name: str) -> str:
        """Return the text of the field, as it was typed."""
        if self._is_posted:
            return request.form.get(name, "")[:MAX_FIELD_CHARS]
        return str(self._defaults.get(name, ""))

    def has(self, name: str, value: str) -> bool:
        """Return whether *value* is selected or checked."""
        if self._is_posted:
            return value in request.form.getlist(name)
        default = self._defaults.get(name, "")
        return value == default if isinstance(default, str) else value in default

    def catch(self, **refusals: type[OutfeedError]) -> Catch:
        """Return a block that notes errors of the fields and of an action.

        *refusals* names the field at which the page shows each of the action's errors. A response that is returned
        inside is that of success. After the block the view shows the form again.
        """
        return Catch(self.errors, refusals)


class Catch:
    """A block that turns expected errors into the errors of a form."""

    def __init__(self, errors: dict[str, str], refusals: Mapping[str, type[OutfeedError]]) -> None:
        self._errors = errors
        self._refusals = refusals

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if isinstance(error, InvalidForm):
            self._errors.update(error.problems)
            return True
        for field, refusal in self._refusals.items():
            if isinstance(error, refusal):
                self._errors[field] = sentence(str(error))
                return True
        return False


def read(**checks: Callable[[str], Any]) -> dict[str, Any]:
    """Return the checked value of each field.

    A missing field is an empty text. Several values of one field are joined by commas, as in an option of a command.
    Raises InvalidForm, which names every invalid field.
    """
    found: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, check in checks.items():
        try:
            found[name] = check(",".join(map(str.strip, request.form.getlist(name))))
        except (ValueError, InvalidRequest) as error:
            problems[name] = sentence(str(error))
    if problems:
        raise InvalidForm(problems)
    return found


def optional(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return *check* for a field that may be empty: it has the value None."""
    return lambda text: check(text) if text else None


def named() -> str:
    """Return the name of the object that an action of a row is about.

    The action itself raises UnknownName, which is answered with 404.
    """
    return request.form.get("name", "")
