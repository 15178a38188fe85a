"""The page of the public API names what the package has, and nothing else."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import airflow_provider_lakebase

REPOSITORY = Path(__file__).parents[2]
PACKAGE = airflow_provider_lakebase.__name__
# All public classes and functions of these are public API. Of ``core``, only what the page names.
PARTS = (
    "assets",
    "emulator",
    "exceptions",
    "hooks",
    "links",
    "operators",
    "sensors",
    "task_groups",
    "transfers",
    "triggers",
)
# They run deferred tasks, and Airflow imports them by name: their paths stay, but nobody is to construct them.
STARTED_BY_THE_PROVIDER = {
    "triggers.change_feed.LakebaseChangeFeedSensorTrigger",
    "triggers.endpoint.LakebaseEndpointTrigger",
    "triggers.operation.LakebaseOperationTrigger",
    "triggers.query.LakebaseQuerySensorTrigger",
    "triggers.statement.LakebaseStatementTrigger",
    "triggers.synced_table.LakebaseSyncedTableSensorTrigger",
}
# Bases of public classes, which promise nothing by themselves.
BASES = {"links.LakebasePageLink", "operators.load.LakebaseLoadBaseOperator"}


def documented() -> dict[str, set[str]]:
    """Return names by module, both without the package's own name."""
    page = (REPOSITORY / "docs" / "reference" / "index.md").read_text()
    table = page.split("checked against the package -->\n")[1].split("<!-- end of public API -->")[0]
    rows = re.findall(r"^\| `(\S+)` \| (.+?) \|", table, re.MULTILINE)
    return {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows}


def public_modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(airflow_provider_lakebase.__path__, f"{PACKAGE}."):
        name = found.name.removeprefix(f"{PACKAGE}.")
        in_part = name.split(".")[0] in PARTS
        if in_part and not any(part.startswith("_") for part in name.split(".")):
            yield name


def public_names(name: str) -> set[str]:
    """Return what ``__all__`` of a module lists, else the public classes that it defines."""
    module = importlib.import_module(f"{PACKAGE}.{name}")
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return set(listed)
    return {
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and inspect.isclass(value) and value.__module__ == module.__name__
    }


def test_every_public_class_is_on_the_page():
    named = documented()
    missing = []
    for module in public_modules():
        if module.startswith("emulator."):  # the emulator's own package names what is public
            continue
        for name in public_names(module) - named.get(module, set()):
            path = f"{module}.{name}"
            if path not in STARTED_BY_THE_PROVIDER | BASES:
                missing.append(path)
    assert missing == []


def test_everything_on_the_page_exists_and_is_not_private():
    named = documented()
    assert len(named) >= 12
    for module, names in named.items():
        assert not any(part.startswith("_") for part in module.split("."))
        assert names, module
        for name in names:
            assert not name.startswith("_")
            assert hasattr(importlib.import_module(f"{PACKAGE}.{module}"), name), f"{module}.{name}"


def test_what_the_provider_starts_itself_keeps_its_path():
    for path in STARTED_BY_THE_PROVIDER:
        module, _, name = path.rpartition(".")
        assert inspect.isclass(getattr(importlib.import_module(f"{PACKAGE}.{module}"), name))
