"""The rules that the error catalogs consist of: which text matches, whether to retry, and what to tell the user.

Each port has its table: :mod:`catalog_postgres` and :mod:`catalog_workspace`. The first rule that matches counts. The
server's own words always stay part of the message, since a rule may read them wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum

from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseError


class Retry(Enum):
    """When another attempt can succeed while a session is being opened."""

    NEVER = "no"
    WAKING = "yes, until wake_timeout"
    """The endpoint wakes, is busy or cannot be reached yet."""
    ROLE_PROPAGATING = "yes, at most 60 s"
    """A new role is not known everywhere yet."""
    IF_WAKING = "once, if the endpoint was waking"
    """The login was refused, which an endpoint may do by mistake while it wakes."""


@dataclass(frozen=True)
class ErrorRule:
    """One row of an error catalog.

    A rule matches by its pattern, by the class of databricks-sdk's error or the workspace's code, or by the HTTP
    status.

    :param example: the error's text as seen or documented
    :param pattern: regular expression that finds the text, whatever names it contains
    :param meaning: what the error means, a sentence without its full stop
    :param retry: whether another attempt can succeed
    :param error: class to raise
    :param hint: what to do, a sentence
    :param sdk_errors: names of databricks-sdk's error classes
    :param statuses: HTTP statuses
    :param codes: the workspace's error codes
    """

    example: str
    pattern: str
    meaning: str
    retry: Retry
    error: type[LakebaseError]
    hint: str
    sdk_errors: Collection[str] = field(default=())
    statuses: Collection[int] = field(default=())
    codes: Collection[str] = field(default=())

    def matches_text(self, text: str) -> bool:
        """Return whether the pattern finds something in a server's text."""
        return bool(self.pattern) and re.search(self.pattern, text, re.IGNORECASE) is not None

    def describe(self, text: str) -> str:
        """Return the meaning, followed by the server's own words on one line."""
        return f"{self.meaning}: {' '.join(text.split())}"

    def to_error(self, text: str, context: ErrorContext, error_code: str = "") -> LakebaseError:
        """Return the error to raise.

        :param text: the server's words
        :param context: the connection and resource they are about
        :param error_code: the workspace's code
        """
        retryable = self.retry is Retry.WAKING
        text = self.describe(text)
        return self.error(text, context=context, hint=self.hint, retryable=retryable, error_code=error_code)


def find_by_text(rules: Collection[ErrorRule], text: str) -> ErrorRule | None:
    """Return the first rule whose pattern finds something in a text, or None."""
    return next((rule for rule in rules if rule.matches_text(text)), None)
