"""Kinds of authentication: what each needs, what databricks-sdk gets, and what no log may show."""

from __future__ import annotations

from typing import Any

import pytest
from databricks.sdk.config import Config

from airflow_provider_lakebase.core.connection.identity import (
    AUTH_KINDS,
    DATABRICKS_KINDS,
    NATIVE,
    SECRET_KEYWORDS,
    AuthKind,
    WorkspaceIdentity,
    read_databricks_identity,
    read_identity,
)
from airflow_provider_lakebase.exceptions import LakebaseSettingsError
from airflow_provider_lakebase.get_provider_info import get_provider_info

FIELDS = {"Host": "w.example", "Login": "id", "oidc_token_env": "TOKEN", "oidc_token_filepath": "/t"}
SIGNED_IN = [kind for kind in AUTH_KINDS.values() if kind.auth_type != NATIVE]


def given(kind: AuthKind, **changes: Any) -> dict[str, Any]:
    fields = {"Host": "w.example", **{name: f"value of {name}" for name in kind.required}}
    return {**fields, **changes}


@pytest.mark.parametrize("kind", SIGNED_IN, ids=lambda kind: kind.auth_type)
def test_a_kind_gives_databricks_sdk_exactly_its_fields(kind: AuthKind):
    identity = read_identity("c", kind.auth_type, given(kind))
    assert (identity.host, identity.auth_type) == ("https://w.example", kind.auth_type)
    assert dict(identity.keywords) == {keyword: f"value of {name}" for name, keyword in kind.required.items()}


@pytest.mark.parametrize("kind", [*SIGNED_IN, *DATABRICKS_KINDS], ids=lambda kind: kind.auth_type)
def test_databricks_sdk_knows_every_keyword(kind: AuthKind):
    known = {attribute.name for attribute in Config.attributes()}
    assert {*kind.required.values(), *kind.optional.values()} <= known


@pytest.mark.parametrize("kind", [*SIGNED_IN, *DATABRICKS_KINDS], ids=lambda kind: kind.auth_type)
def test_what_databricks_sdk_calls_sensitive_is_a_secret_here(kind: AuthKind):
    sensitive = {attribute.name for attribute in Config.attributes() if attribute.sensitive}
    assert sensitive & {*kind.required.values(), *kind.optional.values()} <= SECRET_KEYWORDS


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in SIGNED_IN for name in kind.required],
    ids=lambda value: getattr(value, "auth_type", value),
)
def test_a_field_that_a_kind_needs_is_asked_for(kind: AuthKind, name: str):
    with pytest.raises(LakebaseSettingsError, match=f"Field '{name}' is missing"):
        read_identity("c", kind.auth_type, given(kind, **{name: ""}))


@pytest.mark.parametrize("kind", SIGNED_IN, ids=lambda kind: kind.auth_type)
def test_a_field_that_a_kind_has_no_use_for_is_refused(kind: AuthKind):
    others = {name for each in SIGNED_IN for name in (*each.required, *each.optional)}
    for name in others - {*kind.required, *kind.optional}:
        with pytest.raises(LakebaseSettingsError, match=f"Field '{name}' is not used with auth_type"):
            read_identity("c", kind.auth_type, given(kind, **{name: "x"}))


def test_secrets_are_named_and_stay_out_of_repr_and_key():
    identity = WorkspaceIdentity("https://w.example", "oauth-m2m", {"client_id": "id", "client_secret": "dose1"})
    assert identity.secrets == ["dose1"]
    assert "dose1" not in repr(identity)
    assert "dose1" not in identity.key


def test_each_workspace_and_identity_has_a_key_of_its_own():
    keys = {
        WorkspaceIdentity(host, kind, {"client_id": client, "client_secret": secret}).key
        for host in ("https://a", "https://b")
        for kind in ("oauth-m2m", "env-oidc")
        for client in ("1", "2")
        for secret in ("x", "y")
    }
    assert len(keys) == 16


@pytest.mark.parametrize("chosen", [False, "false", "False", "", None, "no", "0"])
def test_a_databricks_connection_does_not_choose_a_kind_by_saying_no(chosen: object):
    fields = {"Host": "w.example", "Login": "token", "Password": "dapi1", "service_principal_oauth": chosen}
    assert read_databricks_identity("c", "d", fields).auth_type == "pat"


def test_the_client_id_of_a_databricks_connection_may_have_spaces_around_it():
    fields = {"Host": "w.example", "Login": " id\n", "Password": "dose1", "service_principal_oauth": "True"}
    assert read_databricks_identity("c", "d", fields).client_id == "id"
    with pytest.raises(LakebaseSettingsError, match="'d'.*holds no identity"):
        read_databricks_identity("c", "d", {**fields, "Login": " "})


def test_the_form_offers_every_kind():
    (connection,) = get_provider_info()["connection-types"]
    assert set(connection["conn-fields"]["auth_type"]["schema"]["enum"]) == set(AUTH_KINDS)
