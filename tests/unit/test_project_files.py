"""The files that GitHub, PyPI and the provider registry read agree with the project."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import runpy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_lakebase.get_provider_info import get_provider_info

REPOSITORY = Path(__file__).parents[2]
GITHUB = REPOSITORY / ".github"
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
SOURCE = PROJECT["project"]["urls"]["Source"]

PACKAGES = ("apache-airflow", "databricks-sdk", "psycopg")

in_a_clone = pytest.mark.skipif(not GITHUB.exists(), reason="the sdist has no files for GitHub")


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def pinned(path: Path) -> Callable[[str], str]:
    versions = dict(re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE))
    return versions.__getitem__


def jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_yaml(path)["jobs"]
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_a_commit_and_names_its_version(path: Path):
    actions = re.findall(r"uses: *(.*)", path.read_text())
    assert actions
    for action in actions:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@in_a_clone
def test_an_action_has_one_version_in_all_workflows():
    uses = [use for path in WORKFLOWS for use in re.findall(r"uses: *(\S+)", path.read_text())]
    names = {use.partition("@")[0] for use in uses}
    assert len(names) == len(set(uses))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_no_permission_beyond_its_jobs_and_every_job_ends(path: Path):
    workflow = read_yaml(path)
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["group"]
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 60, name


@in_a_clone
def test_the_jobs_of_the_matrix_are_the_lanes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    lanes = runpy.run_path(str(REPOSITORY / "scripts" / "test"))["LANES"]
    matrix = jobs(GITHUB / "workflows" / "test.yml")["lane"]["strategy"]["matrix"]["include"]
    assert [(each["lane"], each["python"]) for each in matrix] == [(lane.key, lane.python) for lane in lanes]
    assert len({lane.key for lane in lanes}) == len(lanes)


def test_the_distribution_names_where_to_find_everything():
    urls = PROJECT["project"]["urls"]
    assert set(urls) == {"Documentation", "Source", "Issues", "Changelog"}
    assert all(url.startswith(SOURCE) for url in urls.values())
    installed = importlib.metadata.metadata("airflow-provider-lakebase").get_all("Project-URL") or []
    assert sorted(installed) == sorted(f"{name}, {url}" for name, url in urls.items())


def test_files_that_a_url_names_exist():
    for url in PROJECT["project"]["urls"].values():
        _, _, path = url.partition("/blob/main/")
        assert (REPOSITORY / path).exists(), url


def test_the_classifiers_name_the_versions_of_python_that_are_tested():
    versions = [each.rpartition(" :: ")[2] for each in PROJECT["project"]["classifiers"] if ":: Python :: 3." in each]
    text = (REPOSITORY / "docs" / "compatibility.md").read_text()
    assert versions == ["3.11", "3.12", "3.13"]
    for version in versions:
        assert version in text


def test_the_table_of_versions_is_the_one_of_the_requirements():
    text = (REPOSITORY / "docs" / "compatibility.md").read_text()
    table = text.split("checked against the requirements files -->\n")[1].split("<!-- end")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    documented = {(row[1], row[3], row[4]) for row in rows}
    files = [path for path in REPOSITORY.glob("requirements*.txt") if "apache-airflow==" in path.read_text()]
    assert documented == {tuple(map(pinned(path), PACKAGES)) for path in files}


def test_the_versions_that_resolve_together_are_those_of_the_requirements():
    text = (REPOSITORY / "docs" / "installation.md").read_text()
    row = text.split("checked against the requirements file -->\n")[1].splitlines()[2]
    names = ("apache-airflow", "dagster", "astronomer-cosmos", "dbt-core", "dbt-postgres")
    versions = map(pinned(REPOSITORY / "requirements-dagster-dbt.txt"), names)
    assert [cell.strip() for cell in row.strip("|").split("|")] == list(versions)


def test_the_sdist_has_the_files_that_a_reader_looks_for():
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for name in ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md"):
        assert f"/{name}" in included
        assert (REPOSITORY / name).exists()


@in_a_clone
def test_the_registry_lists_the_modules_that_airflow_discovers():
    registry = read_yaml(REPOSITORY / ".airflow-registry.yaml")
    assert registry["package-name"] == get_provider_info()["package-name"]
    assert registry["source-url"] == SOURCE
    for kind in ("hooks", "operators", "sensors", "triggers"):
        known = {module for each in get_provider_info()[kind] for module in each["python-modules"]}
        listed = {entry["module"].rpartition(".")[0] for entry in registry[kind]}
        # The other triggers belong to deferred operators and sensors; nobody names them.
        assert listed == known if kind != "triggers" else listed < known
    entries = [entry for kind in ("hooks", "operators", "transfers", "sensors", "triggers") for entry in registry[kind]]
    for entry in entries:
        module, _, name = entry["module"].rpartition(".")
        assert hasattr(importlib.import_module(module), name)
        assert entry["description"]


@in_a_clone
def test_issue_forms_lead_vulnerabilities_to_the_private_channel():
    (link,) = read_yaml(GITHUB / "ISSUE_TEMPLATE" / "config.yml")["contact_links"]
    assert link["url"] == f"{SOURCE}/security/advisories/new"
    assert link["url"] in (REPOSITORY / "SECURITY.md").read_text()
