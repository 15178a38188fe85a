"""SQL as text: where a statement ends, and which placeholders it has.

This is the only SQL splitter, used by hooks, operators, lineage and triggers alike. It needs neither psycopg nor a
session.
Lexical rules: https://www.postgresql.org/docs/current/sql-syntax-lexical.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

from airflow_provider_lakebase.exceptions import LakebaseSettingsError

MAX_LOG_CHARACTERS = 200
"""Characters of a statement that :func:`shorten` keeps."""

Parameters = Sequence[Any] | Mapping[str, Any] | None

# Letters are A to Z, _ and all that is not ASCII. The classes name what is no letter, as a range up to U+10FFFF takes
# milliseconds to compile.
_LETTER = r"[^\x00-\x40\x5b-\x5e\x60\x7b-\x7f]"
_LETTER_OR_DIGIT = r"[^\x00-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]"
_IN_WORD = r"[^\x00-\x23\x25-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f]"  # and $
# Comments nest, and a backslash escapes only in E'…'. An unterminated token extends to the end of the text.
_TOKEN = re.compile(
    rf"""
    (?P<literal>[eE]'(?:[^'\\]|\\.|'')*+
        (?:'(?:[ \t\f\v]|--[^\n\r]*+)*+[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*+)*+'(?:[^'\\]|\\.|'')*+)*+(?:'|\Z)
    | '(?:[^']|'')*+(?:'|\Z)
    | \$(?P<tag>(?:{_LETTER}{_LETTER_OR_DIGIT}*)?)\$.*?(?:\$(?P=tag)\$|\Z))
    | (?P<name>"(?:[^"]|"")*+(?:"|\Z))
    | (?P<line>--[^\n\r]*) | (?P<block>/\*)
    | (?P<word>{_LETTER}{_IN_WORD}*)
    | (?P<end>;) | (?P<space>[ \t\n\r\f\v]+) | (?P<open>\() | (?P<close>\))
    | [^\w\s'"$/;()-]+ | .
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")
# The same placeholders as psycopg's.
_PERCENT = re.compile(r"%(?:(?P<escaped>%)|\((?P<name>[^)]+)\)(?P<format>.?)|(?P<positional>.?))", re.DOTALL)
_FORMATS = ("s", "b", "t")
_CAST = re.compile(r"\s*::")
_GLUE = re.compile(r"[A-Za-z0-9_$'\"]|[^\x00-\x7f]")
_QUOTED = {"literal": "a string literal", "name": "a quoted identifier", "line": "a comment", "block": "a comment"}


class Statement(NamedTuple):
    """A statement and its first four words, in upper case."""

    text: str
    words: tuple[str, ...]


def shorten(statement: str) -> str:
    """Return the beginning of a statement on one line, for logs.

    :param statement: SQL
    """
    text = " ".join(statement.split())
    return text if len(text) <= MAX_LOG_CHARACTERS else f"{text[:MAX_LOG_CHARACTERS]}…"


def split_statements(text: str) -> list[Statement]:
    """Split SQL into statements, as Postgres does. A comment alone is not a statement.

    :param text: SQL
    """
    found: list[Statement] = []
    words: list[str] = []
    start = body = depth = 0
    is_empty, before = True, ""
    for kind, begin, end in _tokens(text):
        if kind == "word":
            is_empty = False
            word = text[begin:end].upper()
            # The body of a function, from BEGIN ATOMIC to END, contains semicolons.
            body += (
                (before == "BEGIN" and word == "ATOMIC")
                + (body > 0 and word in ("CASE", "BEGIN"))
                - (body > 0 and word == "END")
            )
            before = word
            if len(words) < 4:
                words.append(word)
        elif kind in ("open", "close"):
            is_empty = False
            depth = max(depth + (1 if kind == "open" else -1), 0)
        elif kind == "end" and not body and not depth:
            if not is_empty:
                found.append(Statement(text[start:begin].strip(), tuple(words)))
            start, words, is_empty, before = end, [], True, ""
        elif kind not in ("line", "block", "space"):
            is_empty = False
    if not is_empty:
        found.append(Statement(text[start:].strip(), tuple(words)))
    return found


def read_parameters(parameters: Any) -> Parameters:
    """Return the parameters of a statement as a list or a dict; None if there are none.

    :param parameters: a mapping from names to values, or an ordered collection, such as the outputs of mapped tasks.
        Nested sequences become lists and nested mappings dicts; tuples stay tuples
    :raises LakebaseSettingsError: for a single value, text, a set, which has no order, or an iterator, which would be
        exhausted after the first statement
    """
    if parameters is None:
        return None
    if isinstance(parameters, Mapping):
        return {name: _plain(value) for name, value in parameters.items()} or None
    unfit = (str, bytes, bytearray, memoryview, Set, Iterator)
    if isinstance(parameters, unfit) or not isinstance(parameters, Iterable):
        raise LakebaseSettingsError(
            f"The parameters of a statement are a {type(parameters).__name__}",
            hint="Pass a list of values for %s, or a dict for %(name)s.",
        )
    return [_plain(value) for value in parameters] or None


def _plain(value: Any) -> Any:
    """Convert nested sequences to lists and mappings to dicts, which psycopg can adapt."""
    if isinstance(value, str | bytes | bytearray | memoryview | tuple):
        return value
    if isinstance(value, Sequence) and not type(value).__module__.startswith("psycopg"):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return value


def check_placeholders(text: str, parameters: Parameters) -> None:
    """Refuse SQL whose placeholders do not match its parameters.

    Postgres accepts a parameter only in the place of a value. Inside a string literal, a quoted identifier or a
    comment, a placeholder would become part of that text; directly next to a name or a value, part of that token.

    :param text: SQL with placeholders, ``%s`` or ``%(name)s``
    :param parameters: from :func:`read_parameters`; without parameters, ``%`` has no special meaning
    :raises LakebaseSettingsError: with the placeholder, its line, and how to write it
    """
    if not parameters:
        return
    quoted = (token for token in _tokens(text) if token[0] in _QUOTED)
    kind, begin, end = next(quoted, ("", 0, 0))
    spans: list[tuple[int, int, str]] = []
    positional = 0
    names: set[str] = set()
    for match in _PERCENT.finditer(text):
        while kind and end <= match.start():
            spans.append((begin, end, kind))
            kind, begin, end = next(quoted, ("", 0, 0))
        if match["escaped"]:
            continue
        _check_placeholder(text, match, _QUOTED[kind] if kind and begin <= match.start() else "")
        spans.append((match.start(), match.end(), "placeholder"))
        if match["name"]:
            names.add(match["name"])
        else:
            positional += 1
    if kind:
        spans.append((begin, end, kind))
    spans.extend((begin, end, kind) for kind, begin, end in quoted)
    _check_neighbours(text, spans)
    _check_number(positional, names, parameters)


def protect_casts(text: str) -> str:
    """Put each placeholder before a ``::`` in parentheses, because ``::`` binds more tightly than a minus sign.

    :param text: SQL that :func:`check_placeholders` has accepted
    """
    return _PERCENT.sub(
        lambda match: f"({match[0]})" if not match["escaped"] and _CAST.match(text, match.end()) else match[0], text
    )


def _tokens(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield kind, start and end of each token."""
    position = 0
    while match := _TOKEN.match(text, position):
        position = _end_of_comment(text, match.end()) if match["block"] else match.end()
        kind = "literal" if match.lastgroup == "tag" else match.lastgroup or ""
        yield kind, match.start(), position


def _end_of_comment(text: str, position: int) -> int:
    depth = 1
    while depth and (mark := _COMMENT_MARK.search(text, position)):
        depth += 1 if mark[0] == "/*" else -1
        position = mark.end()
    return len(text) if depth else position


def _check_placeholder(text: str, match: re.Match[str], quoted: str) -> None:
    is_placeholder = (match["format"] if match["name"] else match["positional"]) in _FORMATS
    if is_placeholder and not quoted:
        return
    line = text.count("\n", 0, match.start()) + 1
    if not is_placeholder:
        raise LakebaseSettingsError(
            f"The % on line {line} of the statement is not a placeholder: {match[0].strip()!r}",
            hint="Write %% for a per cent sign where parameters are given, %s or %(name)s for a parameter.",
        )
    if quoted:
        name = match[0]
        raise LakebaseSettingsError(
            f"The placeholder {name} on line {line} of the statement is inside {quoted}, "
            "where Postgres takes no parameter",
            hint=_way_out(name, quoted),
        )


def _check_neighbours(text: str, spans: list[tuple[int, int, str]]) -> None:
    """Refuse a placeholder that would merge with an adjacent token.

    Postgres joins two string literals that are separated only by a line break.
    """
    last, last_kind = -1, ""
    for begin, end, kind in spans:
        touches = last >= 0 and not text[last:begin].strip()
        if kind in ("line", "block"):
            last = end if touches else -1
            continue
        is_glued = kind == "placeholder" and ((begin > 0 and _GLUE.match(text, begin - 1)) or _GLUE.match(text, end))
        if is_glued or (touches and "placeholder" in (kind, last_kind) and kind != "name"):
            line = text.count("\n", 0, begin) + 1
            raise LakebaseSettingsError(
                f"A placeholder on line {line} of the statement stands directly beside a name or another value",
                hint="Write || between two texts, and a space after a word. "
                "Name tables and columns in the SQL itself, for example with a Jinja template.",
            )
        last, last_kind = (-1, "") if kind == "name" else (end, kind)


def _way_out(name: str, quoted: str) -> str:
    text = f"Write %{name} if the text itself is meant."
    if quoted == "a string literal":
        return (
            f"Put it outside the quotes: make_interval(days => {name}) for interval '{name} days', "
            f"'prefix ' || {name} for text, the whole value as a parameter for an array or JSON. {text}"
        )
    if quoted == "a quoted identifier":
        return f"Name tables and columns in the SQL itself, for example with a Jinja template. {text}"
    return f"Remove it from the comment. {text}"


def _check_number(positional: int, names: set[str], parameters: Parameters) -> None:
    if positional and names:
        raise LakebaseSettingsError(
            "The statement has both %s and %(name)s", hint="Use one kind of placeholder in a statement."
        )
    if isinstance(parameters, Mapping):
        if positional:
            raise LakebaseSettingsError(
                "The statement has %s, but its parameters are a mapping",
                hint="Write %(name)s, or give a list of values.",
            )
        if missing := sorted(names - set(parameters)):
            raise LakebaseSettingsError(
                f"The statement has %({missing[0]})s, but there is no parameter of that name",
                hint=f"The parameters are {', '.join(map(str, parameters))}.",
            )
    elif names:
        raise LakebaseSettingsError(
            "The statement has %(name)s, but its parameters are not a mapping", hint="Give a dict, or write %s."
        )
    elif parameters is not None and positional != len(parameters):
        raise LakebaseSettingsError(
            f"The statement has {positional} placeholders, but {len(parameters)} parameters are given",
            hint="Give one value for each %s. Values for some of several statements go by name: %(name)s and a dict.",
        )
