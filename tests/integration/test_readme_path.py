"""A newcomer's path: the README's role and DAG, and the file of the page on loading, one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

REPOSITORY = Path(__file__).parents[2]


def block(page: str, containing: str) -> str:
    text = (REPOSITORY / page).read_text()
    (found,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if containing in code]
    return found.replace("from airflow.sdk import DAG", "from airflow.providers.common.compat.sdk import DAG")


def test_the_readmes_role_and_dag_and_a_file_work_one_after_the_other(
    emulator: LakebaseEmulator, connect_as: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    principal = emulator.add_principal("a newcomer's")
    connect_as(principal, "lakebase_default")
    names: dict[str, Any] = {}
    exec(
        block("README.md", 'with DAG("lakebase_role"').replace("schedule=None):", "schedule=None) as role_dag:"), names
    )
    (bootstrap,) = names["role_dag"].tasks
    bootstrap.identity = principal.client_id
    assert bootstrap.execute({})["role"] == "created"
    exec(block("README.md", 'with DAG("prices"').replace("catchup=False):", "catchup=False) as dag:"), names)
    (price,) = names["dag"].tasks
    price.sql = [sql.replace("{{ ds }}", "2026-11-25") for sql in price.sql]
    emulator.suspend()
    for _ in range(2):
        price.execute({})
    assert LakebaseHook().get_records("SELECT day::text, price FROM shop.prices") == [("2026-11-25", 42)]
    monkeypatch.chdir(tmp_path)
    Path("prices.csv").write_text("day,price\n2026-11-24,7\n2026-11-23,NA\n")
    exec(block("docs/loading.md", "def load_prices"), names)
    assert names["load_prices"]() == 2
    assert names["export_prices"]() == 2
    LakebaseHook().run("DROP SCHEMA shop CASCADE")
