"""What the links of a task show."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_lakebase import links
from airflow_provider_lakebase.exceptions import LakebaseSettingsError, LakebaseWorkspaceError

PAGES = {"project": "https://w/p", "branch": "https://w/b", "sql_editor": "https://w/e"}


class TaskInstance:
    def __init__(self) -> None:
        self.task = SimpleNamespace()
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value

    @property
    def pages(self) -> Any:
        return getattr(self.task, links.PAGES_ATTRIBUTE, None) or self.pushed.get(links.XCOM_KEY)


class Hook:
    def __init__(self, pages: dict[str, str], error: Exception | None = None) -> None:
        self.pages, self.error, self.calls = pages, error, 0
        self._on_session: Callable[[], None] | None = None

    def _begin_workspace_pages(self, *, timeout: float) -> Callable[[], dict[str, str]]:
        self.calls += 1
        return self._find

    def _find(self) -> dict[str, str]:
        if self.error:
            raise self.error
        return self.pages

    def open_session(self) -> None:
        if self._on_session:
            self._on_session()


def run(hook: Any, error: Exception | None = None, context: Any = None, sessions: int = 0) -> TaskInstance:
    task_instance = TaskInstance()
    with links.record_links({"ti": task_instance} if context is None else context, hook):
        for _ in range(sessions):
            hook.open_session()
        if error:
            raise error
    return task_instance


def test_the_urls_are_recorded():
    task_instance = run(Hook(PAGES))
    assert task_instance.pages == PAGES
    if AIRFLOW_V_3_0_PLUS:
        found = [link.get_link(task_instance.task, ti_key=None) for link in links.LINKS]  # type: ignore[arg-type]
        assert found == list(PAGES.values())


def test_a_native_login_and_an_operator_outside_a_task_record_nothing():
    assert run(Hook({})).pages is None
    hook = Hook(PAGES)
    run(hook, context={}, sessions=1)
    assert hook.calls == 0


def test_they_are_looked_up_once_while_the_statements_run():
    hook, task_instance = Hook(PAGES), TaskInstance()
    with links.record_links({"ti": task_instance}, hook):  # type: ignore[arg-type,typeddict-item]
        assert hook.calls == 0
        hook.open_session()
        hook.open_session()
        assert hook.calls == 1
    assert (hook.calls, task_instance.pages) == (1, PAGES)
    hook.open_session()
    assert hook.calls == 1


def test_urls_that_cannot_be_looked_up_do_not_fail_the_task(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        assert run(Hook({}, LakebaseWorkspaceError("no"))).pages is None
        assert run(Hook({}, KeyError("secret"))).pages is None
    assert "no links to the workspace: no" in caplog.text
    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("error", [LakebaseSettingsError("x"), LakebaseWorkspaceError("x")])
def test_the_workspace_is_not_asked_again_after_it_was_the_problem(error: Exception):
    hook = Hook(PAGES)
    with pytest.raises(type(error)):
        run(hook, error)
    assert hook.calls == 0


def test_a_task_that_fails_for_another_reason_has_links():
    hook = Hook(PAGES)
    with pytest.raises(ZeroDivisionError):
        run(hook, ZeroDivisionError())
    assert hook.calls == 1
