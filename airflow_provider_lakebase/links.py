"""Links from a task to where the workspace shows what it worked on.

Only the workspace knows the addresses of its pages, so a task asks for them when its work is done. Airflow 3 reads the
links from the operator when the task ends, and stores them itself; for Airflow 2 they are kept in an XCom. Airflow's
servers, which show the links, ask nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperatorLink
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_lakebase.exceptions import LakebaseError, LakebaseSettingsError, LakebaseWorkspaceError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

XCOM_KEY = "lakebase_pages"
PAGES_ATTRIBUTE = "_lakebase_pages"
ANSWER_SECONDS = 5.0
"""Seconds after which a task ends without links."""

log = logging.getLogger(__name__)


class LakebasePageLink(BaseOperatorLink):
    """Hold what the links share: each is one of the addresses that the task kept."""

    page: ClassVar[str]

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the address, or an empty text where the task kept none.

        :param operator: the task's operator
        :param ti_key: which task instance
        """
        if AIRFLOW_V_3_0_PLUS:
            # Asking for an XCom that nobody pushed would write an error into the log of a task that is deferred.
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
    """Link to the branch's SQL editor, on the task's database."""

    name = "Lakebase SQL editor"
    page = "sql_editor"


LINKS = (LakebaseProjectLink(), LakebaseBranchLink(), LakebaseSQLEditorLink())


@contextmanager
def record_links(context: Context, hook: LakebaseHook) -> Iterator[None]:
    """Keep the addresses for the links when the block is done, also when it failed, unless nobody can tell them.

    :param context: Airflow's, of the task
    :param hook: the task's
    """
    try:
        yield
    except (LakebaseSettingsError, LakebaseWorkspaceError):
        raise
    except Exception:
        _keep_links(context, hook, level=logging.DEBUG)
        raise
    else:
        _keep_links(context, hook, level=logging.INFO)


def _keep_links(context: Context, hook: LakebaseHook, level: int) -> None:
    if "ti" not in context:  # the operator runs by itself
        return
    try:
        from airflow_provider_lakebase.core.workspace.client import Workspace
        from airflow_provider_lakebase.core.workspace.console_urls import find_console_urls

        settings = hook.settings
        if settings.identity and settings.endpoint:
            database = settings.session.database
            workspace = Workspace.of(settings)
            pages = find_console_urls(workspace, settings.endpoint, database, timeout=ANSWER_SECONDS)
            if AIRFLOW_V_3_0_PLUS:
                setattr(context["ti"].task, PAGES_ATTRIBUTE, pages)
            else:  # goes with Airflow 2
                context["ti"].xcom_push(key=XCOM_KEY, value=pages)
    except Exception as error:  # whatever it is: the work is done, and its outcome stands
        reason = error if isinstance(error, LakebaseError) else type(error).__name__
        log.log(level, "The task gets no links to the workspace: %s", reason)
