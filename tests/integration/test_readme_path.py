"""A newcomer's path: the README's role, DAG and file, one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(containing: str) -> str:
    (found,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if containing in code]
    return found.replace("from airflow.sdk import DAG", "from airflow.providers.common.compat.sdk import DAG")


def test_the_readmes_role_dag_and_file_work_one_after_the_other(
    emulator: LakebaseEmulator, connect_as: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    principal = emulator.add_principal("a newcomer's")
    connect_as(principal, "lakebase_default")
    names: dict[str, Any] = {}
    exec(block('with DAG("lakebase_role"').replace("schedule=None):", "schedule=None) as role_dag:"), names)
    (bootstrap,) = names["role_dag"].tasks
    bootstrap.identity = principal.client_id
    assert bootstrap.execute({})["role"] == "created"
    exec(block('with DAG("prices"'), names)
    tasks = {task.task_id: task for task in names["awake"].dag.tasks}
    emulator.suspend()
    assert tasks["awake"].poke({}) is True
    for _ in range(2):
        tasks["tables"].execute({})
        tasks["price"].sql = tasks["price"].sql.replace("{{ ds }}", "2026-11-25")
        tasks["price"].execute({})
    assert LakebaseHook().get_records("SELECT day::text, price FROM shop.prices") == [("2026-11-25", 42)]
    monkeypatch.chdir(tmp_path)
    Path("prices.csv").write_text("day,price\n2026-11-24,7\n2026-11-23,NA\n")
    exec(block("def load_prices"), names)
    assert names["load_prices"]() == 2
