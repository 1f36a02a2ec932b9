"""Redaction: values that are named or shaped like secrets are hidden.

No I/O.
"""

from __future__ import annotations

import json
import re
from string import ascii_letters, digits
from typing import Any

from outfeed.config import settings
from outfeed.credentials import CREDENTIAL, HINTS

REDACTED = "[redacted]"
MAX_REMEMBERED_KEYS = 10_000
MAX_REMEMBERED_SHAPES = 1_000

_TEXT_HINTS = re.compile("|".join(HINTS.values()))
# In JSON a backslash may hide any text. Colons stop no search there, because each key has one.
_JSON_HINTS = re.compile(
    rb"\\|'(?=[^'\"]{0,24}:)|" + "|".join(hint for letter, hint in HINTS.items() if letter != ":").encode()
)
# A credential with a colon has these bytes if each byte of a word is replaced by `a`. This search costs less than a
# stop at each colon.
_AFTER_COLON = b":" + b"a" * 35
_WORD_BYTES = (ascii_letters + digits + "_-").encode()
_WORDS_AS_A = bytes.maketrans(_WORD_BYTES, b"a" * len(_WORD_BYTES))
# A name and its value in text that is nearly JSON. In JSON inside JSON the quotes are escaped.
_PAIR = re.compile(
    r"""(?<!\\)(\\{0,7}["'])([\w .-]{1,100})\1(\s{0,8}:\s{0,8})(\\{0,7}["'])(?:\\.|[^\\])*?\4""", re.DOTALL
)
# The parts of JSON that redaction needs.
_TOKEN = re.compile(r'(?P<string>"(?:[^"\\]++|\\.)*+")(?P<colon>\s*:)?|(?P<bracket>[\[\]{}])', re.DOTALL)


def redact(value: Any) -> Any:
    """Return *value*, parsed JSON, with `[redacted]` for each secret.

    A secret is a text, list or object under a key that OUTFEED_REDACT_KEYS names. The key may also end in `_` and such
    a name, in any case, with `-`, `.` or spaces for `_`, or in camel case. A secret is also each part of a text or key
    that is shaped like a well-known credential. *value* itself is not changed.
    """
    return _redactor().redact(value)


def may_hold_secrets(raw: bytes, value: Any) -> bool:
    """Return whether `redact` may find a secret in *value*.

    *raw* is its compact JSON. The result is also True if *raw* may contain more than *value*. If it is False, *raw* may
    be sent unchanged. It is a quick check of both.
    """
    return _may_hold_credentials(raw) or not _redactor().knows(raw, value)


def _may_hold_credentials(raw: bytes) -> bool:
    return _JSON_HINTS.search(raw) is not None or _AFTER_COLON in raw.translate(_WORDS_AS_A)


def text_may_hold_secrets(text: str) -> bool:
    """Return whether `redact` may find a secret in *text*.

    *text* may be several texts that were joined.
    """
    return _may_hold_pairs(text) or _TEXT_HINTS.search(text) is not None


def _may_hold_pairs(text: str) -> bool:
    return ":" in text and ('"' in text or "'" in text)


_CONTAINERS = {dict, list}
_SCALARS = {str, int, float, bool, type(None)}
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_JOINTS = str.maketrans("-. ", "___")


def _key_words(key: str) -> str:
    """Return *key* in lower case, with `_` between its words.

    Access-Token, access.token, ACCESS_TOKEN and accessToken all become `access_token`.
    """
    return _HUMP.sub("_", key).translate(_JOINTS).lower()


class _Redactor:
    """Redacts by one list of names.

    It remembers harmless keys and shapes, so that a known event costs a microsecond. A shape is the tuple of all keys
    that an event, or its data, has down to the second level, in their order.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._names = frozenset(map(_key_words, names))
        self._ends = tuple(f"_{name}" for name in self._names)
        self._harmless: set[str] = set()
        self.harmless_shapes: set[tuple[Any, ...]] = set()

    def knows(self, raw: bytes, value: Any) -> bool:
        """Return whether all keys are harmless and none is missing in *value*.

        *value* must have as many keys as *raw*, because parsing drops one of two equal keys.
        """
        count = raw.count(b'":')
        if value.__class__ is not dict:
            return self._has_harmless_keys(value, count)
        data = value.get("data")
        shape = (*value, *data) if data.__class__ is dict else (*value,)
        if len(shape) == count and shape in self.harmless_shapes:
            return True
        if not self._has_harmless_keys(value, count):
            return False
        if len(shape) == count:  # there are no keys at lower levels
            if len(self.harmless_shapes) > MAX_REMEMBERED_SHAPES:
                self.harmless_shapes.clear()
            self.harmless_shapes.add(shape)
        return True

    def _has_harmless_keys(self, value: Any, wanted: int) -> bool:
        """Return whether *value* has *wanted* keys, all of them harmless."""
        count, todo = 0, [value]
        for node in todo:
            if node.__class__ is dict:
                if not (node.keys() <= self._harmless or self._are_harmless(node)):
                    return False
                count += len(node)
                todo += [child for child in node.values() if child.__class__ in _CONTAINERS]
            elif node.__class__ is list:
                todo += [child for child in node if child.__class__ in _CONTAINERS]
            elif node.__class__ not in _SCALARS:
                return False
        return count == wanted

    def _are_harmless(self, keys: dict[Any, Any]) -> bool:
        return all(isinstance(key, str) and not self.is_secret(key) for key in keys)

    def is_secret(self, key: str) -> bool:
        """Return whether the value under *key* is hidden."""
        if key in self._harmless:
            return False
        words = _key_words(key)
        if words in self._names or words.endswith(self._ends):
            return True
        if len(self._harmless) > MAX_REMEMBERED_KEYS:
            self._harmless.clear()
        self._harmless.add(key)
        return False

    def redact(self, value: Any) -> Any:
        """Return the redacted *value*.

        It works without recursion, because data may be nested as deep as a parser allows.
        """
        if isinstance(value, str):
            return self._redact_text(value)
        holder = [value]
        todo: list[Any] = [holder]
        for node in todo:
            pairs = list(node.items()) if isinstance(node, dict) else list(enumerate(node))
            if isinstance(node, dict):
                node.clear()  # a redacted key is another key
            for key, child in pairs:
                shown = self._shown(key, child)
                node[self._redact_text(key) if isinstance(key, str) else key] = shown
                if isinstance(shown, dict | list):
                    todo.append(shown)
        return holder[0]

    def _shown(self, key: str | int, child: Any) -> Any:
        """Return the replacement of *child*.

        A container is replaced by a copy, whose own children are redacted later.
        """
        if not isinstance(child, str | list | dict):
            return child
        if isinstance(key, str) and self.is_secret(key):
            return REDACTED
        return self._redact_text(child) if isinstance(child, str) else child.copy()

    def _redact_text(self, text: str) -> str:
        if _may_hold_pairs(text):
            text = _PAIR.sub(self._redact_pair, self._redact_json(text))
        return CREDENTIAL.sub(REDACTED, text) if _TEXT_HINTS.search(text) else text

    def _redact_json(self, text: str) -> str:
        """Redact a text that is itself JSON."""
        if not text.lstrip().startswith(("{", "[")):
            return text
        try:
            value = json.loads(text)
            found = self.redact(value)
            return text if found == value else json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        except (ValueError, RecursionError):
            return self._redact_tokens(text)

    def _redact_tokens(self, text: str) -> str:
        """Redact, by tokens, JSON that no parser reads.

        It is cut off, nested too deeply, or has a number of thousands of digits.
        """
        parts: list[str] = []
        done = depth = hidden_depth = 0  # hidden_depth: the depth of a container under a secret name; 0 for none
        name_end = -1  # the end of a secret's name that has just been read
        for match in _TOKEN.finditer(text):
            is_secret = name_end >= 0 and not text[name_end : match.start()].strip()
            name_end = -1
            if match["bracket"] is not None:
                depth += 1 if match["bracket"] in "[{" else -1
                if is_secret and not hidden_depth:
                    parts += [text[done : match.start()], f'"{REDACTED}"']
                    hidden_depth = depth
                elif depth < hidden_depth:
                    done, hidden_depth = match.end(), 0
            elif not hidden_depth:
                name_end = match.end() if match["colon"] and self.is_secret(_loaded(match["string"])) else -1
                shown = f'"{REDACTED}"' if is_secret else self._redact_string(match["string"])
                parts += [text[done : match.start()], shown, match["colon"] or ""]
                done = match.end()
        return "".join([*parts, "" if hidden_depth else text[done:]])

    def _redact_string(self, token: str) -> str:
        value = _loaded(token)
        shown = self._redact_text(value)
        return token if shown == value else json.dumps(shown, ensure_ascii=False)

    def _redact_pair(self, match: re.Match[str]) -> str:
        quote, key, colon, value_quote = match.groups()
        hidden = f"{quote}{key}{quote}{colon}{value_quote}{REDACTED}{value_quote}"
        return hidden if self.is_secret(key) else match[0]


_parse = json.JSONDecoder(strict=False).decode


def _loaded(token: str) -> str:
    """Return the JSON string *token* parsed, or *token* if it is invalid."""
    if "\\" not in token:
        return token[1:-1]
    try:
        return str(_parse(token))
    except ValueError:
        return token


class QuickLook:
    """A quick check that recognizes most events without a secret.

    The page is searched once for credentials, so that an event costs half of what `may_hold_secrets` does.
    """

    def __init__(self, page: bytes) -> None:
        self._has_credentials = _may_hold_credentials(page)
        self._harmless_shapes = _redactor().harmless_shapes

    def is_plain(self, raw: bytes, event: dict[str, Any]) -> bool:
        """Return whether *event* is known to need no redaction.

        *raw*, its JSON, is part of the page. If the result is True, `data` also has no list, and no object with keys.
        """
        data = event.get("data")
        shape = (*event, *data) if data.__class__ is dict else (*event,)
        return (
            shape in self._harmless_shapes
            and len(shape) == raw.count(b'":')
            and b"[" not in raw
            and not (self._has_credentials and _may_hold_credentials(raw))
        )


_last_redactor = _Redactor(())


def _redactor() -> _Redactor:
    """Return the redactor for the current settings.

    The settings are compared by identity, because this is called for every event.
    """
    global _last_redactor
    names = settings().redact_keys
    if _last_redactor.names is not names:
        _last_redactor = _Redactor(names)
    return _last_redactor
