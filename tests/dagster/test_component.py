"""A project of components, as the documentation shows it: it scaffolds, validates and runs."""

import os
import re
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import yaml
from dagster import Definitions, ResourceDefinition

from airflow_provider_lakebase.dagster import LakebaseConnectionComponent, LakebaseResource
from airflow_provider_lakebase.dagster.authentication import Authentication
from airflow_provider_lakebase.emulator import LakebaseEmulator

PAGE = (Path(__file__).parents[2] / "docs" / "dagster.md").read_text()
BLOCKS = {name: code for name, code in re.findall(r"```{code-block} \w+\n:\w+: (\S+)\n\n(.*?)```", PAGE, re.DOTALL)}
SECRET = "s3cret"
PROJECT = """
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "flights"
"""
DEFINITIONS = """
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


def test_a_project_scaffolds_validates_and_runs(emulator: LakebaseEmulator, lakebase: LakebaseResource, tmp_path: Path):
    principal = emulator.service_principal
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path / "src"),
        "DAGSTER_HOME": str(tmp_path / "home"),
        "DAGSTER_DISABLE_TELEMETRY": "true",
        "DATABRICKS_HOST": emulator.workspace_url,
        "DATABRICKS_CLIENT_ID": principal.client_id,
        "DATABRICKS_CLIENT_SECRET": principal.client_secret,
        "LAKEBASE_ENDPOINT": emulator.endpoint,
        "PGPORT": str(emulator.port),
    }

    def dg(*arguments: str) -> str:
        command = ["dg", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    folder = tmp_path / "src" / "flights"
    (folder / "defs").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    for path in (folder / "__init__.py", folder / "defs" / "__init__.py"):
        path.touch()
    (folder / "definitions.py").write_text(DEFINITIONS)
    (scaffold,) = re.findall(r"^dg (scaffold .*)$", PAGE, re.MULTILINE)
    dg(*scaffold.split())
    written = yaml.safe_load((folder / "defs" / "connection" / "defs.yaml").read_text())
    assert written["type"] == yaml.safe_load(BLOCKS["connection/defs.yaml"])["type"]
    for name in ("connection/defs.yaml", "late_flights/defs.yaml"):
        path = folder / "defs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(BLOCKS[name])
    dg("check", "defs")
    shown = dg("launch", "--assets", "reports/late_flights")
    with lakebase.get_connection() as session:
        assert session.execute("SELECT * FROM reports.late_flights").fetchall() == [(1, 30)]
        session.execute("DROP SCHEMA reports CASCADE")
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(principal.client_secret.encode() in content for content in [*kept, shown.encode()])


@pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated:DeprecationWarning")  # Dagster calls it
def test_the_resource_of_a_component_hides_its_configuration(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET", "hidden")
    text = """
        resource_key: lakebase
        authentication: {auth_type: oauth-m2m, client_id: a, client_secret: "{{ 'hidden' }}"}
    """
    component = LakebaseConnectionComponent.resolve_from_yaml(text)
    definitions = component.build_defs(None)
    assert isinstance(definitions, Definitions)
    (definition,) = definitions.resources.values()
    assert isinstance(definition, ResourceDefinition)
    assert "hidden" not in repr(component)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ('port: "{{ secret }}"', "port\n.*valid integer"),
        ("libpq: {sslpassword: 987654}", r"libpq\.sslpassword at .*:2`\n.*valid string"),
        ("endpont: s3cret", r"endpont at .*:2\n.*not permitted"),
        ("authentication: s3cret", "authentication.*\n.*valid dictionary"),
        ('authentication: "{{ kind }}"', "pasword\n.*not permitted"),
        (
            "authentication: {auth_type: oauth-m2m, client_id: a, client_secret: s3cret, client_secrett: s3cret}",
            r"^1 validation error .*\n`authentication\.client_secrett at .*:1`\n.*not permitted",
        ),
        (
            "authentication: {auth_type: oauth, client_id: a, client_secret: s3cret}",
            r"^1 validation error .*\nauthentication at .*:1\n.*'oauth' .*expected tags: 'oauth-m2m'",
        ),
        ("authentication: {client_id: a, client_secret: s3cret}", "^1 validation error .*\n.*\n.*'auth_type'"),
        ("authentication: {auth_type: password, user: a, password: 987654}", r"authentication\.password at"),
    ],
)
@pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated:DeprecationWarning")  # Dagster calls it
def test_an_error_in_a_component_names_the_field_and_hides_its_value(attributes: str, message: str):
    known = "authentication: {auth_type: oauth-m2m, client_id: a, client_secret: s3cret}"
    kind = {"auth_type": "password", "user": "a", "pasword": SECRET}
    text = attributes if attributes.startswith("authentication") else f"{known}\n{attributes}"
    with pytest.raises(Exception, match=message) as refused:
        LakebaseConnectionComponent.resolve_from_yaml(text, scope={"secret": SECRET, "kind": kind})
    shown = "".join(traceback.format_exception(refused.value))
    assert SECRET not in shown
    assert "987654" not in shown


def test_the_page_names_all_fields_and_kinds_of_authentication():
    table = PAGE.split("<!-- fields: ")[1].split("<!-- end of fields -->")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == set(LakebaseResource.model_fields)
    for kind in Authentication.__subclasses__():
        fields = [name for name in kind.model_fields if name != "auth_type"]
        auth_type = kind.model_fields["auth_type"].default
        assert f"| `{kind.__name__}` | `{auth_type}` | {', '.join(f'`{name}`' for name in fields)}" in PAGE


def test_the_python_of_the_page_runs():
    for name in ("sensors", "branch"):
        exec(compile(BLOCKS[name], name, "exec"), {"__name__": "page"})
