"""The libpq keywords of a session: what the connection says, and nothing of the environment."""

from __future__ import annotations

import os

import pytest
from psycopg.pq import Conninfo

from airflow_provider_lakebase.core.connection.settings import LakebaseSettings, SessionSettings
from airflow_provider_lakebase.core.session.libpq import libpq_keywords
from airflow_provider_lakebase.exceptions import LakebaseSettingsError


def keywords(**session: object) -> dict[str, str]:
    settings = LakebaseSettings("c", None, None, SessionSettings(**session))  # type: ignore[arg-type]
    return libpq_keywords(settings, "app")


def test_database_port_and_name_come_from_the_settings():
    found = keywords(database="sales", port=6000)
    assert (found["dbname"], found["port"], found["application_name"]) == ("sales", "6000", "app")


def test_host_user_and_password_are_left_to_the_caller():
    assert not {"host", "user", "password"} & keywords().keys()


def test_a_keyword_of_the_connection_overrides_the_provider_s_default():
    assert keywords()["keepalives_idle"] == "30"
    assert keywords(libpq={"keepalives_idle": "90"})["keepalives_idle"] == "90"


@pytest.mark.parametrize("keyword", ["keepalives_idle", "keepalives_interval", "keepalives_count"])
def test_a_keepalive_of_0_is_the_systems_own(keyword: str):
    assert keyword not in keywords(libpq={keyword: "0"})


def test_a_keyword_that_libpq_does_not_know_is_refused_with_the_nearest():
    with pytest.raises(LakebaseSettingsError, match="'keepalive_idle' is unknown.*Did you mean 'keepalives_idle'"):
        keywords(libpq={"keepalive_idle": "90"})


VARIABLES = [each for each in Conninfo.get_defaults() if each.envvar and each.envvar != b"PGSERVICE"]


@pytest.mark.parametrize("option", VARIABLES, ids=lambda option: option.envvar.decode())
def test_a_variable_of_the_environment_is_overridden(option: object, monkeypatch: pytest.MonkeyPatch):
    keyword, variable = option.keyword.decode(), option.envvar.decode()  # type: ignore[attr-defined]
    before = keywords().get(keyword)
    monkeypatch.setenv(variable, "nonsense")
    after = keywords().get(keyword)
    assert after != "nonsense"
    if before is not None:
        assert after == before


@pytest.mark.parametrize("variable", ["PGSERVICE", "PGDATESTYLE", "PGTZ", "PGGEQO"])
def test_a_variable_that_no_keyword_overrides_is_refused(variable: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(variable, "x")
    with pytest.raises(LakebaseSettingsError, match=f"{variable} is set in the environment.*Unset {variable}"):
        keywords()


def test_the_certificate_authorities_follow_sslmode():
    assert keywords()["sslrootcert"].startswith(os.devnull)
    assert keywords(sslmode="verify-full")["sslrootcert"].endswith("cacert.pem")
    assert keywords(sslmode="verify-ca", sslrootcert="/ca.pem")["sslrootcert"] == "/ca.pem"


def test_a_read_only_session_says_so_in_its_options_and_a_pooled_host_gets_none():
    assert "default_transaction_read_only=on" in keywords(read_only=True)["options"]
    assert keywords(libpq={"options": "-c a=1"})["options"].endswith("-c a=1")
    assert keywords(pg_host="ep-a-pooler.database.example")["options"] == ""
