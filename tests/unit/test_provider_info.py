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

from airflow_provider_lakebase import __version__
from airflow_provider_lakebase.fields import EXTRA_FIELDS
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


def test_airflow_lists_the_provider():
    command = [sys.executable, "-m", "airflow", "providers", "list", "--output", "json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = json.loads(output[output.index("[{") :])
    found = {row["package_name"]: row["version"] for row in rows}
    assert found["airflow-provider-lakebase"] == __version__
