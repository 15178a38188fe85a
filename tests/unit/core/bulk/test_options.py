"""Each option is defined once: keyword arguments, hook and operators have the same names, types and defaults."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest

from airflow_provider_lakebase.core.bulk.formats import FORMATS, FormatName
from airflow_provider_lakebase.core.bulk.options import (
    ExportKeywords,
    ExportOptions,
    FileOptions,
    LoadKeywords,
    LoadOptions,
    list_options,
)
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook
from airflow_provider_lakebase.operators.load import LakebaseExportOperator, LakebaseLoadOperator
from airflow_provider_lakebase.transfers.sql_to_lakebase import SqlToLakebaseOperator

FILE_ONLY = {each.name for each in list_options(LoadOptions) if each.needs_file}
OPERATORS = [
    (LakebaseLoadOperator, LoadOptions, {"load_id"}),
    (SqlToLakebaseOperator, LoadOptions, {"load_id", *FILE_ONLY}),
    (LakebaseExportOperator, ExportOptions, set()),
]


def parameters_of(operator: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of an operator's own constructors, as Airflow finds them for ``partial``."""
    found: dict[str, inspect.Parameter] = {}
    for kind in operator.__mro__:
        if kind.__module__.startswith("airflow_provider_lakebase"):
            found = {**inspect.signature(kind.__init__).parameters, **found}
    return found


@pytest.mark.parametrize(("options", "keywords"), [(LoadOptions, LoadKeywords), (ExportOptions, ExportKeywords)])
def test_the_keywords_are_the_options(options: type[FileOptions], keywords: Any):
    assert get_type_hints(keywords) == {each.name: each.annotation for each in list_options(options)}


@pytest.mark.parametrize(
    ("method", "options"), [(LakebaseHook.load, LoadOptions), (LakebaseHook.export, ExportOptions)]
)
def test_the_hook_takes_the_options(method: Any, options: type[FileOptions]):
    parameters = inspect.signature(method).parameters
    for option in list_options(options):
        assert parameters[option.name].default == option.default
        assert parameters[option.name].annotation == option.annotation
        assert f":param {option.name}: " in method.__doc__
    assert ":param options:" not in method.__doc__
    assert not any(each.kind is each.VAR_KEYWORD for each in parameters.values())


@pytest.mark.parametrize(("operator", "options", "without"), OPERATORS)
def test_an_operator_takes_the_options(operator: Any, options: type[FileOptions], without: set[str]):
    parameters = parameters_of(operator)
    known = list_options(options)
    assert {each.name for each in known} & set(parameters) == {each.name for each in known} - without
    documented = "".join(kind.__doc__ or "" for kind in operator.__mro__)
    for option in known:
        if option.name in without:
            continue
        assert parameters[option.name].default == option.default
        assert parameters[option.name].annotation == option.annotation
        assert f":param {option.name}: " in documented
        assert (option.name in operator.template_fields) == (option.annotation is not bool)


@pytest.mark.parametrize("options", [LoadOptions, ExportOptions])
def test_each_option_is_documented(options: type[FileOptions]):
    for option in list_options(options):
        assert len(option.description) > 20, option.name
        assert "\n" not in option.description


def test_an_operator_stores_its_options_and_passes_them_on():
    operator = LakebaseLoadOperator(task_id="t", table="x", source="a.csv", mode="replace", null="NA")
    given = operator._options()
    assert (given["mode"], given["null"], given["duplicates"], given["header"]) == ("replace", "NA", "last", True)
    assert LoadOptions(**given) == LoadOptions(mode="replace", null="NA")


def test_default_args_and_partial_know_the_options():
    operator = LakebaseLoadOperator(
        task_id="t", source="a.csv", table="x", default_args={"null": "NA", "mode": "upsert", "ledger_schema": "s"}
    )
    assert (operator._options()["null"], operator.mode, operator.ledger_schema) == ("NA", "upsert", "s")
    mapped = LakebaseLoadOperator.partial(task_id="m", table="x", null="NA", mode="replace").expand(source=["a", "b"])
    assert mapped.partial_kwargs["null"] == "NA"
    with pytest.raises(TypeError, match="nul"):
        LakebaseLoadOperator.partial(task_id="n", table="x", nul="NA").expand(source=["a"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": "merge"}, "mode is 'merge'. Choose from append, replace, upsert"),
        ({"duplicates": "first"}, "duplicates is 'first'"),
        ({"format": "xml"}, "format is 'xml'. Choose from csv, json, jsonl, parquet"),
        ({"update_columns": ["a"]}, "update_columns is given with mode 'append'. Use mode 'upsert'"),
        ({"version_column": "a", "mode": "replace"}, "version_column is given with mode 'replace'"),
        ({"replace_where": "true"}, "replace_where is given with mode 'append'. Use mode 'replace'"),
        ({"key_columns": ["a"]}, "key_columns is given with mode 'append'"),
        ({"load_id": " "}, "load_id is empty"),
        ({"columns": "a"}, "columns is a str"),
        ({"null": ","}, "null contains the quote, the delimiter"),
        ({"null": None}, "null contains"),
    ],
)
def test_options_that_contradict_each_other_are_rejected(given: dict[str, Any], said: str):
    with pytest.raises(LakebaseSettingsError, match=said):
        LoadOptions(**given)


def test_key_columns_may_be_given_to_create_a_table():
    assert LoadOptions(key_columns=["a"], create_table=True).key_columns == ["a"]


def test_options_of_one_format_are_found_where_they_are_given():
    assert list(LoadOptions().given_for_one_format()) == []
    assert list(LoadOptions(null="NA", header=False, mode="replace").given_for_one_format()) == [
        ("header", "csv"),
        ("null", "csv"),
    ]


def test_options_of_files_are_told_apart():
    assert FILE_ONLY >= {"format", "header", "null", "index"}
    assert not FILE_ONLY & {"mode", "create_table"}


def test_the_table_of_formats_has_each_format_once():
    assert tuple(FORMATS) == FormatName.__args__  # type: ignore[attr-defined]
    endings = [ending for row in FORMATS.values() for ending in row.endings]
    assert len(set(endings)) == len(endings)
