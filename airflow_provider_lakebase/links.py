"""Links from a task to the workspace's pages of its project, branch and database.

The URLs contain ids that only the workspace knows, so a task looks them up while its statements run. Airflow 3 reads
the links from the operator when the task ends, and stores them; for Airflow 2 they are stored in an XCom. The servers
that show the links send no requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperatorLink
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_lakebase.exceptions import LakebaseError, LakebaseSettingsError, LakebaseWorkspaceError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
    from airflow_provider_lakebase.hooks.workspace import LakebaseWorkspaceHook

XCOM_KEY = "lakebase_pages"
PAGES_ATTRIBUTE = "_lakebase_pages"
ANSWER_SECONDS = 5.0
"""Seconds to look up the URLs, after which the task ends without links."""

log = logging.getLogger(__name__)


class LakebasePageLink(BaseOperatorLink):
    """A link to one of the URLs that the task recorded."""

    page: ClassVar[str]

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the URL, or an empty string if the task recorded none.

        :param operator: the task's operator
        :param ti_key: key of the task instance
        """
        if AIRFLOW_V_3_0_PLUS:
            # Reading an XCom that was never pushed would log an error in a task that is deferred.
            pages = getattr(operator, PAGES_ATTRIBUTE, None)
        else:  # goes with Airflow 2
            from airflow.providers.common.compat.sdk import XCom

            pages = XCom.get_value(ti_key=ti_key, key=XCOM_KEY)
        return str(pages[self.page]) if pages else ""


class LakebaseProjectLink(LakebasePageLink):
    """Link to the project."""

    name = "Lakebase project"
    page = "project"


class LakebaseBranchLink(LakebasePageLink):
    """Link to the branch."""

    name = "Lakebase branch"
    page = "branch"


class LakebaseSQLEditorLink(LakebasePageLink):
    """Link to the SQL editor on the task's database."""

    name = "Lakebase SQL editor"
    page = "sql_editor"


LINKS = (LakebaseProjectLink(), LakebaseBranchLink(), LakebaseSQLEditorLink())


@contextmanager
def record_links(context: Context, hook: LakebaseHook) -> Iterator[None]:
    """Record the link URLs when the block exits, even on failure; skip them if they cannot be looked up.

    :param context: the task's context
    :param hook: the task's hook
    """
    if "ti" not in context:  # the operator runs outside a task
        yield
        return
    pages = _Pages(hook._begin_workspace_pages)
    # Not before: the requests that a session needs go first.
    hook._on_session = pages.begin
    try:
        yield
    except (LakebaseSettingsError, LakebaseWorkspaceError):
        raise
    except Exception:
        _record(context, pages, level=logging.DEBUG)
        raise
    else:
        _record(context, pages, level=logging.INFO)
    finally:
        hook._on_session = None


def record_branch_links(context: Context, hook: LakebaseWorkspaceHook, resource: str | None) -> dict[str, str] | None:
    """Record the link URLs of a branch, and return them; skip them if they cannot be looked up.

    :param context: the task's context
    :param hook: the task's hook
    :param resource: resource name of the branch, or of one of its endpoints; None if there is none
    """
    if resource and "ti" in context:
        return _record(context, _Pages(partial(hook._begin_workspace_pages, resource)), level=logging.INFO)
    return None


def show_branch_links(context: Context, pages: dict[str, str] | None) -> None:
    """Record link URLs that were looked up before the branch was deleted.

    :param context: the task's context
    :param pages: what :func:`record_branch_links` returned
    """
    if pages and "ti" in context:
        _store(context, pages)


def find_branch_page(hook: LakebaseWorkspaceHook, resource: str) -> str:
    """Return the URL of a branch's page, for a log.

    :param hook: the task's hook
    :param resource: resource name of the branch
    """
    try:
        return hook._begin_workspace_pages(resource, timeout=ANSWER_SECONDS)()["branch"]
    except LakebaseError as error:
        return f"its page could not be looked up: {error}"


class _Pages:
    """The URLs, looked up once, in a thread.

    :param look_up: begins to look them up, and returns a function that waits for them
    """

    def __init__(self, look_up: Callable[..., Callable[[], dict[str, str]]]) -> None:
        self._look_up = look_up
        self._wait: Callable[[], dict[str, str]] | None = None

    def begin(self) -> None:
        """Begin to look them up; an error is left to :meth:`find`."""
        with suppress(Exception):
            self._wait = self._wait or self._look_up(timeout=ANSWER_SECONDS)

    def find(self) -> dict[str, str]:
        """Return them."""
        return (self._wait or self._look_up(timeout=ANSWER_SECONDS))()


def _record(context: Context, found: _Pages, level: int) -> dict[str, str] | None:
    try:
        if pages := found.find():
            _store(context, pages)
            return pages
    except Exception as error:  # must not change the outcome of the task
        reason = error if isinstance(error, LakebaseError) else type(error).__name__
        log.log(level, "The task gets no links to the workspace: %s", reason)
    return None


def _store(context: Context, pages: dict[str, str]) -> None:
    if AIRFLOW_V_3_0_PLUS:
        setattr(context["ti"].task, PAGES_ATTRIBUTE, pages)
    else:  # goes with Airflow 2
        context["ti"].xcom_push(key=XCOM_KEY, value=pages)
