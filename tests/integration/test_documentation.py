"""The documentation builds without a warning, its links resolve, its code runs, its tables are those of the code.

Left out where Sphinx is not installed: one version of Airflow is enough.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from airflow.providers.common.compat.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger

import airflow_provider_lakebase
from airflow_provider_lakebase import operators, sensors, transfers, triggers
from airflow_provider_lakebase.core.connection.fields import EXTRA_FIELDS
from airflow_provider_lakebase.core.connection.identity import AUTH_KINDS
from airflow_provider_lakebase.core.connection.settings import LakebaseSettings
from airflow_provider_lakebase.core.errors.catalog_postgres import POSTGRES_RULES
from airflow_provider_lakebase.core.errors.catalog_workspace import WORKSPACE_RULES
from airflow_provider_lakebase.exceptions import LakebaseSettingsError, in_words
from airflow_provider_lakebase.get_provider_info import get_provider_info
from airflow_provider_lakebase.hooks._words import AIRFLOW_WORDS
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

pytest_plugins = ["pytester"]

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = {
    str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md")) if "_build" not in path.parts
}
CAPTIONED = re.compile(r"```{code-block} (\w+)\n:(?:caption|name): (\S+)\n\n(.*?)```", re.DOTALL)
PLAIN = re.compile(r"^```(python|bash|json|sql)\n(.*?)```", re.DOTALL | re.MULTILINE)
RUN_ALL = """
import json, sys

for page, code in json.load(sys.stdin):
    exec(compile(code, page, "exec"), {"__name__": "page"})
"""


def blocks(page: str, language: str) -> list[str]:
    return [code for kind, code in PLAIN.findall(PAGES[page]) if kind == language]


def pages_with(language: str) -> list[str]:
    found = [page for page in PAGES if blocks(page, language)]
    assert found
    return found


def named_blocks(page: str) -> dict[str, str]:
    return {name: code for _, name, code in CAPTIONED.findall(PAGES[page])}


# ── the built pages ──


class _Page(HTMLParser):
    """What a page leads to, and where it can be led to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" and value:
                self.anchors.add(value)
            if name in ("href", "src") and value:
                self.links.append(value)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "scripts"))
        build = runpy.run_path(str(REPOSITORY / "scripts" / "docs"))["build"]
    assert build(Path(sys.executable), target, "--quiet") == 0
    return target


def test_the_build_has_no_warning_and_a_page_for_each_source(built: Path):
    for page in PAGES:
        assert (built / page).with_suffix(".html").exists()


def test_every_internal_link_and_anchor_resolves(built: Path):
    pages = {path: _Page(path) for path in built.rglob("*.html")}
    broken, followed = [], 0
    for path, page in pages.items():
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            anchor = unquote(url.fragment)
            followed += 1
            if not target.exists() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.relative_to(built)} → {link}")
    assert followed > 500
    assert broken == []


def test_a_broken_link_would_be_seen(tmp_path: Path):
    path = tmp_path / "page.html"
    path.write_text('<a href="#nowhere">x</a><p id="here"></p>')
    page = _Page(path)
    assert (page.links, page.anchors) == (["#nowhere"], {"here"})


def test_the_built_pages_load_nothing_from_elsewhere(built: Path):
    for path in built.rglob("*.html"):
        assert not re.search(r'<(?:script|img|link)\b[^>]*(?:src|href)="(?:https?:)?//', path.read_text()), path


# ── what is documented ──


def public_classes(package: ModuleType, base: type) -> Iterator[str]:
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if found.name.removeprefix(f"{package.__name__}.").startswith("_"):
            continue
        module = importlib.import_module(found.name)
        for name, value in inspect.getmembers(module, inspect.isclass):
            if value.__module__ == module.__name__ and issubclass(value, base) and not name.startswith("_"):
                yield f"{module.__name__}.{name}"


def test_every_operator_sensor_hook_and_trigger_has_a_page():
    reference = "\n".join(text for page, text in PAGES.items() if page.startswith("reference/"))
    classes = [
        *(name for package in (operators, sensors, transfers) for name in public_classes(package, BaseOperator)),
        *public_classes(triggers, BaseTrigger),
    ]
    assert len(classes) >= 11
    internal = {
        "airflow_provider_lakebase.triggers._polling.PollingTrigger",  # base class
        "airflow_provider_lakebase.triggers.operation.LakebaseOperationTrigger",  # of deferred operators
        "airflow_provider_lakebase.triggers.statement.LakebaseStatementTrigger",  # of a deferred SQL operator
    }
    for name in {*classes} - internal:
        assert f"autoclass:: {name}\n" in reference, name
    assert ".. autoclass:: LakebaseHook\n" in reference


def test_every_public_method_of_the_hook_is_documented():
    own = ("airflow_provider_lakebase.hooks",)
    bases = [each for each in LakebaseHook.__mro__ if each.__module__.startswith(own)]
    names = {name for each in bases for name in vars(each) if not name.startswith("_")}
    functions = {name for name in names if callable(getattr(LakebaseHook, name))}
    documented = set(re.findall(r"auto(?:method|property):: LakebaseHook\.(\w+)", PAGES["reference/hook.md"]))
    assert functions - documented == set()


def test_every_class_that_a_page_names_exists():
    # Read, not imported: some modules need what is installed elsewhere.
    sources = [path.read_text() for path in Path(airflow_provider_lakebase.__file__).parent.rglob("*.py")]
    known = {name for text in sources for name in re.findall(r"^class (\w+)", text, re.MULTILINE)}
    named = {name for text in PAGES.values() for name in re.findall(r"\b(?:Lakebase|SqlToLakebase)[A-Z]\w+", text)}
    assert len(named) > 15
    assert named - known == set()


def test_the_pages_show_every_picture_that_there_is_and_say_what_it_shows():
    shown = [match for text in PAGES.values() for match in re.findall(r"{image} (\S+)\n:alt: (.+)\n", text)]
    assert len(shown) == sum(text.count("{image}") for text in PAGES.values())
    assert {picture for picture, _ in shown} == {f"pictures/{each.name}" for each in (DOCS / "pictures").iterdir()}


# ── tables that repeat the code ──


def table(page: str, mark: str) -> str:
    return PAGES[page].split(f"<!-- {mark}: checked against ")[1].split(f"<!-- end of {mark} -->")[0]


def test_the_error_table_is_the_one_of_the_code():
    lines = ["| text | meaning | retried while opening | what to do |", "| --- | --- | --- | --- |"]
    for rule in POSTGRES_RULES + WORKSPACE_RULES:
        lines.append(
            f"| `{rule.example}` | {rule.meaning} | {rule.retry.value} | {in_words(rule.hint, AIRFLOW_WORDS)} |"
        )
    wanted = "\n".join(lines)
    found = table("troubleshooting.md", "errors").split("-->\n")[1].strip()
    assert found == wanted, f"Put this table into docs/troubleshooting.md:\n{wanted}"


def test_every_field_of_the_connection_is_in_the_table_and_none_besides():
    rows = re.findall(r"^\| (\S+).*? \|", table("connection.md", "fields"), re.MULTILINE)
    own = ["Host", "Login", "Password", "Schema", "Port"]
    assert sorted(rows[2:]) == sorted([*own, *(f"`{name}`" for name in (*EXTRA_FIELDS, "options"))])
    for name in AUTH_KINDS:
        assert f"`{name}`" in table("connection.md", "fields")
    labels = get_provider_info()["connection-types"][0]["ui-field-behaviour"]["relabeling"]
    for field, label in labels.items():
        assert f"| {field.capitalize()} (in the form: {label}) |" in table("connection.md", "fields")


# ── code on the pages ──


def test_the_python_of_the_pages_runs():
    codes = [(page, code) for page in pages_with("python") for code in blocks(page, "python")]
    assert len(codes) >= 5
    command = [sys.executable, "-c", RUN_ALL]
    result = subprocess.run(command, input=json.dumps(codes), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize("page", pages_with("bash"))
def test_the_commands_of_a_page_are_commands(page: str):
    for code in blocks(page, "bash"):
        result = subprocess.run(["bash", "-n"], input=code, capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (0, "")


def connections(text: str) -> dict[str, dict[str, Any]]:
    found = re.findall(r"export AIRFLOW_CONN_(\w+)='(.*?)'", text, re.DOTALL)
    return {name.lower(): json.loads(value) for name, value in found}


def read(conn_id: str, found: dict[str, dict[str, Any]]) -> LakebaseSettings:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in found.items():
            environment.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(value))
        return LakebaseHook(conn_id).settings


def test_the_connections_of_the_pages_are_read_by_the_hook():
    started = connections(PAGES["quick-start.md"])
    assert read("lakebase_default", started).identity.auth_type == "oauth-m2m"
    assert read("lakebase_admin", started).identity.auth_type == "pat"
    assert read("lakebase_default", connections(PAGES["connection.md"])).session.database == "databricks_postgres"
    (without_secret,) = blocks("connection.md", "json")
    assert read("federated", {"federated": json.loads(without_secret)}).identity.auth_type == "file-oidc"


def test_the_uri_of_the_connection_page_says_the_same_as_its_json():
    (uri,) = re.findall(r"^(lakebase://\S+)$", PAGES["connection.md"], re.MULTILINE)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW_CONN_LAKEBASE_URI", uri)
        by_uri = LakebaseHook("lakebase_uri").settings
    by_json = read("lakebase_default", connections(PAGES["connection.md"]))
    assert by_uri.endpoint == by_json.endpoint
    assert (by_uri.session.database, by_uri.session.port) == (by_json.session.database, by_json.session.port)
    assert by_uri.require_identity().host == by_json.require_identity().host


def test_every_code_block_is_of_a_kind_that_is_looked_at():
    """Text is what something prints; directives of Sphinx fail the build when they are wrong."""
    kinds = {kind for text in PAGES.values() for kind in re.findall(r"^```([\w{}:-]+)", text, re.MULTILINE)}
    plain = {"python", "bash", "json", "sql", "text"}
    directives = {"{code-block}", "{eval-rst}", "{image}", "{include}", "{literalinclude}", "{toctree}"}
    assert kinds <= plain | directives


def test_the_query_for_a_tasks_session_runs(hook: LakebaseHook):
    (query,) = blocks("scale.md", "sql")
    assert hook.get_first(query)[0].startswith("airflow-provider-lakebase/")


def test_the_parameters_of_the_migration_page_are_bound_or_refused(hook: LakebaseHook):
    examples = named_blocks("migration.md")
    refused = examples.pop("refused").splitlines()
    assert (set(examples), len(refused)) == ({"literals", "lists", "types", "several", "ddl"}, 7)
    for name, code in examples.items():
        assert "assert " in code or name == "ddl"
        exec(compile(code, name, "exec"), {"hook": hook})
    for line in refused:
        with pytest.raises(LakebaseSettingsError):
            eval(line, {"hook": hook})


def test_the_files_of_the_testing_page_are_those_of_the_project_that_is_tested():
    files = {name: code for name, code in named_blocks("testing.md").items() if "." in name and name != "conftest.py"}
    project = REPOSITORY / "tests" / "project"
    wanted = {path for path in project.rglob("*.*") if path.is_file() and "__pycache__" not in path.parts}
    assert files == {str(path.relative_to(project)): path.read_text() for path in wanted}


@pytest.mark.long
def test_the_other_examples_of_the_testing_page_work(pytester: pytest.Pytester):
    blocks = named_blocks("testing.md")
    pytester.makeconftest(blocks["conftest.py"])
    test = blocks["marker"].replace(
        "...", "assert LakebaseHook().get_first('SELECT name FROM crm.customers') == ('Ada',)"
    )
    imports = "import pyarrow\nimport pytest\nfrom airflow_provider_lakebase.hooks.lakebase import LakebaseHook\n"
    publish = f"def test_publish(lakebase):\n    {blocks['publish']}    assert version == 0\n"
    pytester.makepyfile(f"{imports}\n{test}\n{publish}")
    pytester.runpytest_subprocess("--strict-markers").assert_outcomes(passed=2)


@pytest.mark.long
def test_the_programs_of_the_emulator_page_work(tmp_path: Path):
    blocks = named_blocks("emulator.md")
    (tmp_path / "sign_in.py").write_text(blocks["sign-in"])
    script = f"set -e\n{sys.executable} sign_in.py\n{blocks['control']}"
    command = [str(Path(sys.executable).with_name("lakebase-emulator")), "--quiet", "--", "sh", "-c", script]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "PostgreSQL" in result.stdout
    state = json.loads(result.stdout[result.stdout.index('{"workspace_url"') :])
    assert len(state["faults"]) == 2
    (branch,) = state["projects"][0]["branches"]
    assert branch["endpoints"][0]["status"]["current_state"] == "IDLE"


def test_the_options_of_the_command_are_on_its_page():
    help_text = subprocess.run(
        [sys.executable, "-m", "airflow_provider_lakebase.emulator", "--help"], capture_output=True
    )
    options = set(re.findall(r"--[a-z][a-z-]+", help_text.stdout.decode())) - {"--help"}
    assert options
    assert options == set(re.findall(r"--[a-z][a-z-]+", PAGES["emulator.md"].split("| option |")[1].split("## ")[0]))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_quick_start_works_word_for_word_in_an_empty_directory(tmp_path: Path):
    steps = named_blocks("quick-start.md")
    commands = [steps[name] for name in ("install", "emulator", "run", "run", "look", "stop")]
    for name, code in steps.items():
        if "/" in name:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(code)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTHON", "VIRTUAL"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    result = subprocess.run(
        ["bash", "-e"],
        input="\n".join([*commands, "wait"]),
        cwd=tmp_path,
        # Python compiles what it imports, which is a fifth of what pip would compile.
        env={**kept, "CLONE": str(REPOSITORY), "PATH": path, "PIP_COMPILE": "0"},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert result.stdout.endswith(steps["output"])
    assert "Created role " in result.stdout + result.stderr
    assert "already has all that is declared" in result.stdout + result.stderr
