"""Redaction: what is named or shaped like a secret never comes out. No I/O."""

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
# In JSON anything may hide behind a backslash. Colons stop no scan there: each key has one.
_JSON_HINTS = re.compile(
    rb"\\|'(?=[^'\"]{0,24}:)|" + "|".join(hint for letter, hint in HINTS.items() if letter != ":").encode()
)
# A credential with a colon has this, with each byte of a word replaced by `a`. The search costs less than the stops.
_AFTER_COLON = b":" + b"a" * 35
_WORD_BYTES = (ascii_letters + digits + "_-").encode()
_WORDS_AS_A = bytes.maketrans(_WORD_BYTES, b"a" * len(_WORD_BYTES))
# A name and its value in text that is nearly JSON; in JSON inside JSON the quotes are escaped.
_PAIR = re.compile(
    r"""(?<!\\)(\\{0,7}["'])([\w .-]{1,100})\1(\s{0,8}:\s{0,8})(\\{0,7}["'])(?:\\.|[^\\])*?\4""", re.DOTALL
)
# Of JSON, all that redaction needs to see.
_TOKEN = re.compile(r'(?P<string>"(?:[^"\\]++|\\.)*+")(?P<colon>\s*:)?|(?P<bracket>[\[\]{}])', re.DOTALL)


def redact(value: Any) -> Any:
    """Return *value*, parsed JSON, with `[redacted]` in the place of what must not be seen.

    That is a text, list or object under a key that OUTFEED_REDACT_KEYS names (or that ends in `_` and such a name, in
    any case, with `-`, `.` or spaces for `_`, or in camel case), and in texts and keys whatever is shaped like a
    well-known credential. *value* itself is not changed.
    """
    return _redactor().redact(value)


def may_hold_secrets(raw: bytes, value: Any) -> bool:
    """Return whether `redact` could find something in *value*, or raw could say more: a quick look at both.

    *raw* is its compact JSON. Where this is False, raw may go out as it is.
    """
    return _may_hold_credentials(raw) or not _redactor().knows(raw, value)


def _may_hold_credentials(raw: bytes) -> bool:
    return _JSON_HINTS.search(raw) is not None or _AFTER_COLON in raw.translate(_WORDS_AS_A)


def text_may_hold_secrets(text: str) -> bool:
    """Return whether `redact` could find something in *text*, or in one of the texts that were joined to it."""
    return _may_hold_pairs(text) or _TEXT_HINTS.search(text) is not None


def _may_hold_pairs(text: str) -> bool:
    return ":" in text and ('"' in text or "'" in text)


_CONTAINERS = {dict, list}
_SCALARS = {str, int, float, bool, type(None)}
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_JOINTS = str.maketrans("-. ", "___")


def _key_words(key: str) -> str:
    """Return `access_token` for Access-Token, access.token, ACCESS_TOKEN and accessToken."""
    return _HUMP.sub("_", key).translate(_JOINTS).lower()


class _Redactor:
    """Redacts by one list of names. Remembers what is harmless, so that a known event costs a microsecond.

    That is keys, and shapes: all keys that an event, or its data, has down to the second level, in their order.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._names = frozenset(map(_key_words, names))
        self._ends = tuple(f"_{name}" for name in self._names)
        self._harmless: set[str] = set()
        self.harmless_shapes: set[tuple[Any, ...]] = set()

    def knows(self, raw: bytes, value: Any) -> bool:
        """Return whether all keys are harmless, and as many in *value* as in *raw*: of two equal ones one is lost."""
        count = raw.count(b'":')
        if value.__class__ is not dict:
            return self._has_harmless_keys(value, count)
        data = value.get("data")
        shape = (*value, *data) if data.__class__ is dict else (*value,)
        if len(shape) == count and shape in self.harmless_shapes:
            return True
        if not self._has_harmless_keys(value, count):
            return False
        if len(shape) == count:  # there are no others further down
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
        """Return whether what stands under *key* is hidden."""
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
        """Without recursion: data may be nested as deep as a parser goes."""
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
        """Return what stands in the place of *child*; of a container a copy, whose own children are still to do."""
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
        """Look into a text that is itself JSON."""
        if not text.lstrip().startswith(("{", "[")):
            return text
        try:
            value = json.loads(text)
            found = self.redact(value)
            return text if found == value else json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        except ValueError:
            return text
        except RecursionError:
            return self._redact_deep_json(text)

    def _redact_deep_json(self, text: str) -> str:
        """Redact JSON that is nested deeper than a parser goes, token by token."""
        parts: list[str] = []
        done = depth = hidden_depth = 0  # hidden_depth: that of a container under a secret name; 0 for none
        name_end = -1  # where the name of a secret has just ended
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


def _loaded(token: str) -> str:
    """Return the string of JSON, or the token itself if it is none."""
    try:
        return str(json.loads(token, strict=False))
    except ValueError:
        return token


class QuickLook:
    """Recognize most events of a page that have nothing to redact.

    The page is scanned once for credentials, so that an event costs half of what `may_hold_secrets` does.
    """

    def __init__(self, page: bytes) -> None:
        self._has_credentials = _may_hold_credentials(page)
        self._harmless_shapes = _redactor().harmless_shapes

    def is_plain(self, raw: bytes, event: dict[str, Any]) -> bool:
        """Return whether *event* is known to need no redaction.

        *raw*, its JSON, stands in the page. True says also that `data` holds no list, and no object with keys.
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
    """Return the one for the settings as they are; by identity, since this is asked for every event."""
    global _last_redactor
    names = settings().redact_keys
    if _last_redactor.names is not names:
        _last_redactor = _Redactor(names)
    return _last_redactor
