"""Several endpoints: what each has of its own and what they share."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from databricks.sdk.service.postgres import Endpoint, EndpointSpec, EndpointType, FieldMask

from airflow_provider_lakebase.emulator import LakebaseEmulator

REPORTING = "projects/demo/branches/production/endpoints/reporting"


@pytest.fixture(scope="module")
def reader(emulator: LakebaseEmulator) -> str:
    """The host of a read-only endpoint of the emulator."""
    assert emulator.add_endpoint("reporting", endpoint_type="ENDPOINT_TYPE_READ_ONLY") == REPORTING
    return emulator.endpoint_host(REPORTING)


@pytest.mark.belief(
    "a branch lists its endpoints with type and host; a read-only endpoint also has its host as read_only_host",
    source="databricks-sdk-py service/postgres.py EndpointHosts",
    sure="documented",
)
def test_endpoints_of_a_branch_are_listed(reader: str, administrator: Any) -> None:
    branch = administrator.endpoint.split("/endpoints/")[0]
    found = {each.name: each.status for each in administrator.client().postgres.list_endpoints(branch)}
    assert set(found) == {administrator.endpoint, REPORTING}
    assert found[REPORTING].endpoint_type == EndpointType.ENDPOINT_TYPE_READ_ONLY
    assert found[REPORTING].hosts.host == found[REPORTING].hosts.read_only_host == reader
    assert found[REPORTING].hosts.read_write_pooled_host is None


@pytest.mark.belief(
    "a credential is valid for every endpoint, whichever it was minted for",
    source="Databricks docs, Lakebase: Authentication (the token is scoped to the workspace)",
    sure="documented",
)
def test_credential_opens_every_endpoint(reader: str, administrator: Any) -> None:
    administrator.connect(host=reader, password=administrator.credential()).close()


@pytest.mark.belief(
    "a session on a read-only endpoint cannot write: 25006",
    source="Databricks docs, Lakebase: Read replicas; PostgreSQL",
    sure="documented",
)
def test_read_only_endpoint_takes_no_writes(reader: str, administrator: Any) -> None:
    with administrator.connect() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS read_only_test (n int)")
    with administrator.connect(host=reader) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="cannot execute INSERT in a read-only"):
            connection.execute("INSERT INTO read_only_test VALUES (1)")


@pytest.mark.belief(
    "each endpoint suspends and wakes independently",
    source="Databricks docs, Lakebase: Read replicas",
    sure="documented",
)
def test_endpoints_sleep_apart(emulator: LakebaseEmulator, reader: str, administrator: Any) -> None:
    with administrator.connect() as connection:
        emulator.suspend(REPORTING)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    administrator.connect(host=reader).close()
    assert emulator.endpoint_state(REPORTING) == "ACTIVE"


@pytest.mark.belief(
    "an endpoint with readable secondaries has a read-only host, read_only_host, as well as its own",
    source="databricks-sdk-py service/postgres.py EndpointHosts",
    sure="documented",
)
def test_readable_secondary_has_a_host(emulator: LakebaseEmulator, administrator: Any) -> None:
    emulator.add_endpoint("primary", endpoint_type="ENDPOINT_TYPE_READ_WRITE", branch="highly-available")
    name = "projects/demo/branches/highly-available/endpoints/primary"
    emulator.enable_readable_secondary(name)
    hosts = administrator.client().postgres.get_endpoint(name).status.hosts
    assert hosts.read_only_host not in (None, hosts.host)
    with administrator.connect(host=hosts.read_only_host) as connection:
        assert connection.execute("SHOW transaction_read_only").fetchone() == ("on",)


@pytest.mark.belief(
    "update_endpoint with the mask spec.disabled disables or enables an endpoint; no login wakes a disabled one",
    source="databricks-sdk-py service/postgres.py EndpointSpec.disabled",
    sure="documented",
)
def test_endpoint_is_disabled_by_an_update(reader: str, administrator: Any) -> None:
    postgres = administrator.client().postgres

    def update(disabled: bool) -> Any:
        spec = EndpointSpec(endpoint_type=EndpointType.ENDPOINT_TYPE_READ_ONLY, disabled=disabled)
        return postgres.update_endpoint(
            REPORTING, Endpoint(name=REPORTING, spec=spec), FieldMask(["spec.disabled"])
        ).wait()

    assert update(True).status.disabled
    try:
        administrator.refusal(host=reader)
    finally:
        assert not update(False).status.disabled
    administrator.connect(host=reader).close()
