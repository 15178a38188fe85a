"""Check the options of CSV files: each one alone, and that no two contradict each other."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence

from airflow_provider_lakebase.exceptions import LakebaseSettingsError

_NEVER_IN_NULL = frozenset("\r\n\0")
_IN_NUMBERS = frozenset("0123456789+-eE")


def check_characters(characters: Mapping[str, str | None]) -> None:
    """Check options that are one character each, and that no two are the same one.

    An escape may be the quote: then a quote is doubled.

    :param characters: value by option: ``delimiter``, and others that are None if they are not used
    :raises LakebaseSettingsError: if one is not a character, or two are the same
    """
    for name, value in characters.items():
        if value is not None or name == "delimiter":
            _check_character(name, value)
    given = [(name, value) for name, value in characters.items() if value is not None]
    for number, (name, value) in enumerate(given):
        for other, same in given[:number]:
            if same == value and {name, other} != {"quote", "escape"}:
                hint = "Give two different characters."
                raise LakebaseSettingsError(f"{name} and {other} are the same", hint=hint)


def _check_character(name: str, value: object) -> None:
    if not isinstance(value, str) or len(value) != 1 or value in "\r\n\0\1" or "\ud800" <= value <= "\udfff":
        hint = "Give one character other than a line break; a tab is '\\t' in Python, without another backslash."
        raise LakebaseSettingsError(f"{name} is {value!r}", hint=hint)


def check_encoding(name: str) -> None:
    """Check that Python has an encoding.

    :param name: its name
    :raises LakebaseSettingsError: if not
    """
    try:
        codecs.getincrementaldecoder(name)()
        "".encode(name)
    except (LookupError, TypeError, ValueError):
        hint = "Give the name of a text encoding of Python, such as 'latin-1'."
        raise LakebaseSettingsError(f"encoding is {name!r}", hint=hint) from None


def check_null(texts: Sequence[object], delimiter: str, quote: str | None, comment: str | None = None) -> None:
    """Check the texts that stand for NULL.

    :param texts: the texts
    :param delimiter: of the file
    :param quote: of the file
    :param comment: of the file
    :raises LakebaseSettingsError: if an unquoted value cannot be one of them
    """
    for text in texts:
        if not isinstance(text, str) or set(text) & {quote, delimiter, *_NEVER_IN_NULL}:
            raise LakebaseSettingsError(
                "null contains the quote, the delimiter, a line break or a null byte",
                hint="Give the text exactly as the file has it, without quotes. In columns that are not text, a quoted "
                "empty value is NULL in any case.",
            )
        if comment is not None and text.startswith(comment):
            hint = "A line that begins with such a NULL would be a comment. Give another 'comment', or None."
            raise LakebaseSettingsError("null begins with the character of comments", hint=hint)


def check_numbers(decimal: str, thousands: str | None, others: Mapping[str, str | None]) -> None:
    """Check how numbers are written.

    :param decimal: the option of that name
    :param thousands: the option of that name
    :param others: the characters of the dialect, as for :func:`check_characters`
    :raises LakebaseSettingsError: if numbers cannot be read so
    """
    if (decimal, thousands) == (".", None):
        return  # numbers stay as they are
    for name, value in {"decimal": decimal, "thousands": thousands}.items():
        if value is None and name == "thousands":
            continue
        _check_character(name, value)
        if value in _IN_NUMBERS:
            hint = "Give a character that numbers have no other use for."
            raise LakebaseSettingsError(f"{name} is {value!r}", hint=hint)
        for other in ("quote", "escape"):
            if others[other] == value:
                hint = "Give two different characters."
                raise LakebaseSettingsError(f"{name} and {other} are the same", hint=hint)
        if others["quote"] is None and value == others["delimiter"]:
            hint = "Without quotes, no value can contain the delimiter."
            raise LakebaseSettingsError(f"{name} and delimiter are the same, and quote is None", hint=hint)
    if decimal == thousands:
        raise LakebaseSettingsError("decimal and thousands are the same", hint="Give two different characters.")
