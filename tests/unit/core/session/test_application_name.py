"""What pg_stat_activity shows of a session."""

from __future__ import annotations

from airflow_provider_lakebase.core.session.application_name import PRODUCT, name_application, name_statements

TASK = {"AIRFLOW_CTX_DAG_ID": "etl", "AIRFLOW_CTX_TASK_ID": "load", "AIRFLOW_CTX_DAG_RUN_ID": "r"}


def test_a_session_outside_of_a_task_is_named_after_the_product():
    assert name_application({}) == PRODUCT


def test_a_session_of_a_task_ends_with_task_run_and_try():
    first = name_application({**TASK, "AIRFLOW_CTX_TRY_NUMBER": "1"})
    assert first.startswith(f"{PRODUCT} etl.load#")
    assert first.endswith(".1")
    assert name_application({**TASK, "AIRFLOW_CTX_DAG_RUN_ID": "s", "AIRFLOW_CTX_TRY_NUMBER": "1"}) != first


def test_a_long_name_keeps_its_end_within_what_postgres_keeps():
    name = name_application({**TASK, "AIRFLOW_CTX_DAG_ID": "d" * 200})
    assert len(name.encode()) == 63
    assert ".load#" in name


def test_deferred_statements_have_one_name_for_all_tries_of_a_task_instance():
    assert name_statements("etl", "load", "instance") == name_statements("etl", "load", "instance")
    assert name_statements("etl", "load", "instance") != name_statements("etl", "load", "other")
