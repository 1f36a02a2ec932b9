"""Log messages: a constant text and its fields."""

from __future__ import annotations


class LogMessage:
    """A message for `log.warning` and similar calls.

    Any handler writes it as text: `poll failed error=locked`. A handler that knows the class can write the fields
    separately, as `http.logs.Json` does.
    """

    def __init__(self, text: str, /, **fields: object) -> None:
        self.text = text
        self.fields = fields

    def __str__(self) -> str:
        return " ".join([self.text, *(f"{name}={value}" for name, value in self.fields.items())])
