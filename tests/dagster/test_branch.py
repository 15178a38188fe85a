"""A branch as a resource: it lives as long as the run."""

from typing import Any

import pyarrow
import pytest
from dagster import MaterializeResult, asset, materialize

from airflow_provider_lakebase.dagster import (
    LakebaseBranchResource,
    LakebaseIOManager,
    LakebaseResource,
    ServicePrincipal,
)
from airflow_provider_lakebase.emulator import LakebaseEmulator


def branch_of(lakebase: LakebaseResource, **others: Any) -> LakebaseBranchResource:
    fields = {name: getattr(lakebase, name) for name in LakebaseResource.model_fields}
    return LakebaseBranchResource(**{**fields, **others})


def test_a_run_works_on_a_branch_of_its_own(lakebase: LakebaseResource, emulator: LakebaseEmulator, schema: str):
    lakebase.connect_and_execute(f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.flights AS SELECT 1 AS id")
    seen = []

    @asset
    def emptied(lakebase: LakebaseResource):
        with lakebase.get_connection() as session:
            seen.append(session.execute(f"DELETE FROM {schema}.flights").rowcount)

    @asset(deps=[emptied])
    def counted(lakebase: LakebaseResource):
        seen.append(lakebase.endpoint)
        with lakebase.get_connection() as session:
            seen.append(session.execute(f"SELECT count(*) FROM {schema}.flights").fetchone()[0])

    branch = branch_of(lakebase)
    result = materialize([emptied, counted], resources={"lakebase": branch})
    assert seen[0::2] == [1, 0]
    assert seen[1] == f"projects/demo/branches/dagster-{result.run_id[:13]}"
    with lakebase.get_connection() as session:
        assert session.execute(f"SELECT count(*) FROM {schema}.flights").fetchone() == (1,)
    assert "dagster" not in str(lakebase.endpoint_status())


@pytest.mark.parametrize("secret", ["EnvVar", "text"])
def test_an_io_manager_shares_the_branch(
    lakebase: LakebaseResource, emulator: LakebaseEmulator, schema: str, secret: str
):
    seen = []

    @asset(key_prefix=schema)
    def flights() -> pyarrow.Table:
        return pyarrow.table({"id": [1]})

    @asset(deps=[flights])
    def counted(lakebase: LakebaseResource) -> None:
        with lakebase.get_connection() as session:
            seen.append(session.execute(f"SELECT count(*) FROM {schema}.flights").fetchone()[0])

    principal = emulator.service_principal
    text = ServicePrincipal(client_id=principal.client_id, client_secret=principal.client_secret)
    branch = branch_of(lakebase, **({"authentication": text} if secret == "text" else {}))
    resources = {"lakebase": branch, "io_manager": LakebaseIOManager(lakebase=branch)}
    assert materialize([flights, counted], resources=resources).success
    assert seen == [1]
    with lakebase.get_connection() as session:
        assert session.execute("SELECT to_regclass(%s)", [f"{schema}.flights"]).fetchone() == (None,)


def test_a_run_that_fails_leaves_no_branch(lakebase: LakebaseResource, emulator: LakebaseEmulator):
    names = []

    @asset
    def failing(lakebase: LakebaseResource) -> MaterializeResult:
        names.append(lakebase.endpoint)
        raise RuntimeError("failed")

    branch = branch_of(lakebase)
    assert not materialize([failing], resources={"lakebase": branch}, raise_on_error=False).success
    found = [request for request in emulator.requests if names[0] in request.path and request.method == "DELETE"]
    assert len(found) == 1
