"""What Airflow discovers."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_lakebase import __version__
from airflow_provider_lakebase.core.connection.fields import EXTRA_FIELDS
from airflow_provider_lakebase.get_provider_info import get_provider_info

AIRFLOW = Path(airflow.__file__).parent


def test_it_validates_against_airflows_schema():
    schema = json.loads((AIRFLOW / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


@pytest.mark.parametrize("key", sorted(get_provider_info()))
def test_each_key_validates_against_the_stricter_schema_where_that_has_it(key: str):
    schema = json.loads((AIRFLOW / "provider.yaml.schema.json").read_text())
    if key in schema["properties"]:
        jsonschema.validate(
            get_provider_info()[key], {**schema["properties"][key], "definitions": schema["definitions"]}
        )


def test_the_package_name_is_the_distributions():
    assert importlib.metadata.version(get_provider_info()["package-name"]) == __version__


def test_every_module_and_class_it_names_exists():
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors"):
        for entry in info[kind]:
            for module in entry["python-modules"]:
                importlib.import_module(module)
    for connection in info["connection-types"]:
        module, _, name = connection["hook-class-name"].rpartition(".")
        hook: Any = getattr(importlib.import_module(module), name)
        assert hook.conn_type == connection["connection-type"]
        assert hook.hook_name == connection["hook-name"]


def test_the_form_has_a_field_for_every_extra_of_the_providers_own():
    fields = get_provider_info()["connection-types"][0]["conn-fields"]
    assert set(EXTRA_FIELDS) | {"options"} == set(fields)


FORM = """
import json, sys
if airflow_2:
    from airflow.www.app import create_app
    from airflow.www.forms import create_connection_form_class
    with create_app(testing=True).test_request_context():
        form = create_connection_form_class()()
        fields = {
            field.name.removeprefix("extra__lakebase__"): [
                str(field.label.text), field.description,
                next((list(each.values) for each in field.validators if hasattr(each, "values")), None),
            ]
            for field in form if field.name.startswith("extra__lakebase__")
        }
    from airflow.providers_manager import ProvidersManager
    standard = ProvidersManager().field_behaviours["lakebase"]
    labels, hints = standard["relabeling"], standard["placeholders"]
else:
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
    (hook,) = [each for each in HookMetaService.hook_meta_data() if each.connection_type == "lakebase"]
    fields = {
        name: [field["schema"].get("title") or field["schema"].get("label") or field.get("label"),
               field.get("description") or field["schema"].get("description"), field["schema"].get("enum")]
        for name, field in hook.extra_fields.items()
    }
    standard = {name: getattr(hook.standard_fields, name) for name in ("host", "login", "password", "port")}
    standard["schema"] = hook.standard_fields.url_schema
    labels = {name: field.title for name, field in standard.items()}
    hints = {name: field.placeholder for name, field in standard.items()}
print("FORM", json.dumps([fields, labels, hints]))
"""


def test_the_form_that_this_airflow_shows_is_the_one_described():
    program = FORM.replace("airflow_2", str(not AIRFLOW_V_3_0_PLUS))
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("FORM ")]
    fields, labels, hints = json.loads(line.removeprefix("FORM "))
    (described,) = get_provider_info()["connection-types"]
    assert list(fields) == list(described["conn-fields"])
    for name, field in described["conn-fields"].items():
        label, description, choices = fields[name]
        assert label == field["label"]
        assert description.startswith(field["description"])
        assert choices == field["schema"].get("enum")
    assert labels == described["ui-field-behaviour"]["relabeling"]
    assert hints == described["ui-field-behaviour"]["placeholders"]


@pytest.mark.parametrize("name", sorted(get_provider_info()["connection-types"][0]["conn-fields"]))
def test_each_choice_of_the_form_is_one_that_the_settings_take(name: str):
    choices = get_provider_info()["connection-types"][0]["conn-fields"][name]["schema"].get("enum")
    if choices is None:
        assert name not in ("auth_type", "read_only", "sslmode")
        return
    for choice in choices:
        EXTRA_FIELDS[name]("form", name, choice)


def test_airflow_lists_the_provider():
    command = [sys.executable, "-m", "airflow", "providers", "list", "--output", "json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = json.loads(output[output.index("[{") :])
    found = {row["package_name"]: row["version"] for row in rows}
    assert found["airflow-provider-lakebase"] == __version__
