"""Skip the retries of a step that cannot help."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dagster import Failure

from airflow_provider_lakebase.core.errors.classify import is_permanent
from airflow_provider_lakebase.dagster._words import DAGSTER_WORDS
from airflow_provider_lakebase.exceptions import LakebaseError


@contextmanager
def fail_without_retry(words: Mapping[str, str] = DAGSTER_WORDS) -> Iterator[None]:
    """Raise ``Failure(allow_retries=False)`` for errors that a retry cannot help; all others pass.

    :param words: of their messages
    :raises Failure: with the message of the error, which is its cause
    """
    try:
        yield
    except Failure:
        raise
    except Exception as error:
        if isinstance(error, LakebaseError):
            error.words = words
        if not is_permanent(error):
            raise
        text = "\n".join([str(error), *getattr(error, "__notes__", ())])
        raise Failure(text, allow_retries=False) from error
