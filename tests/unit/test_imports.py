"""Airflow parses DAG files all day: what they import of the provider loads nothing heavy."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import airflow_provider_lakebase

HEAVY = ["databricks", "psycopg", "psycopg_pool", "pandas", "polars", "pyarrow"]
PACKAGE = "airflow_provider_lakebase"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
PARTS = ("assets", "hooks", "lineage", "links", "operators", "sensors", "transfers", "triggers")


def modules_for_dag_authors() -> list[str]:
    root = airflow_provider_lakebase.__name__
    return [
        module.name
        for module in pkgutil.walk_packages(airflow_provider_lakebase.__path__, f"{root}.")
        if module.name.startswith(tuple(f"{root}.{part}" for part in PARTS))
    ]


def loaded_after(statement: str) -> list[str]:
    program = f"{statement}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    names: list[str] = eval(output.splitlines()[-1])
    return names


def test_modules_for_dag_authors_load_no_driver():
    modules = modules_for_dag_authors()
    assert "airflow_provider_lakebase.operators.sql" in modules
    assert loaded_after("\n".join(f"import {module}" for module in modules)) == []


def test_the_check_itself_sees_a_heavy_import():
    assert loaded_after("import airflow_provider_lakebase.core.session.connect") == ["psycopg"]


def test_discovery_imports_no_airflow():
    program = "import airflow_provider_lakebase.get_provider_info as info; import sys; info.get_provider_info()"
    check = "sys.exit('airflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", f"{program}; {check}"]).returncode == 0


def core_imports_in_functions(path: Path) -> list[str]:
    """Return what a module's functions import of the core."""
    functions = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, FUNCTIONS))
    imports = (node for function in functions for node in ast.walk(function) if isinstance(node, ast.ImportFrom))
    return [f"{path.name}: {node.module}" for node in imports if f"{PACKAGE}.core" in (node.module or "")]


def test_only_hooks_load_the_heavy_part_of_the_core():
    """What heavy modules of the core do is a method or a function of the hooks, wherever it is needed."""
    root = Path(airflow_provider_lakebase.__file__).parent
    modules = [path for part in PARTS if part != "hooks" for path in (root / part).rglob("*.py")]
    modules += [path for part in PARTS if (path := root / f"{part}.py").exists()]
    assert len(modules) > 20
    assert [each for path in modules for each in core_imports_in_functions(path)] == []
