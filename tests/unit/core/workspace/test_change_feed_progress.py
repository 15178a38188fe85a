from __future__ import annotations

from datetime import timedelta

import pytest
from databricks.sdk.service.postgres import CdfState, CdfStatus

from airflow_provider_lakebase.core.workspace.change_feed_progress import (
    APPEARING_SECONDS,
    Commitment,
    TableFeed,
    lsn_number,
    read_idle_after,
    read_lsn,
    read_tables,
)
from airflow_provider_lakebase.exceptions import NO_CONTEXT, LakebaseChangeFeedError, LakebaseSettingsError

BRANCH = "projects/shop/branches/production"
FEED = f"{BRANCH}/databases/databricks-postgres/cdf-configs/app"


def table(name: str = "orders", state: str = "STREAMING", lsn: str = "1/0", **facts: object) -> TableFeed:
    return TableFeed(f"{FEED}/cdf-statuses/{name}", name, state, committed_lsn=lsn, **facts)  # type: ignore[arg-type]


def test_a_status_is_read_as_the_sdk_reads_it() -> None:
    answer = {
        "name": f"{FEED}/cdf-statuses/orders",
        "postgres_table": "orders",
        "state": "CDF_STATE_STREAMING",
        "committed_lsn": "16/B374D848",
        "last_sync_time": "2026-11-28T12:00:00.250Z",
    }
    ours, theirs = TableFeed.of(answer), CdfStatus.from_dict(answer)
    assert (ours.name, ours.table, ours.committed_lsn) == (theirs.name, theirs.postgres_table, theirs.committed_lsn)
    assert theirs.state and theirs.state.value == f"CDF_STATE_{ours.state}"
    assert theirs.last_sync_time and ours.synced_at == theirs.last_sync_time.ToMilliseconds() / 1000
    assert TableFeed.of({"name": "x/cdf-statuses/orders"}).table == "orders"


def test_the_sdk_knows_the_states_that_are_compared() -> None:
    known = {each.value.removeprefix("CDF_STATE_") for each in CdfState}
    assert known == {"SNAPSHOTTING", "STREAMING", "SKIPPED", "TERMINATED"}


def test_numbers_are_compared_as_numbers() -> None:
    texts = ["0/9", "0/A", "0/10", "0/FFFFFFFF", "9/0", "A/0", "10/1"]
    numbers = [lsn_number(each) or 0 for each in texts]
    assert numbers == sorted(set(numbers))
    assert table(lsn="10/1").has_committed("9/ffffffff")
    assert not table(lsn="10/1").has_committed("10/2")
    assert not table(lsn="").has_committed("0/1")


@pytest.mark.parametrize("text", ["", "0", "0/", "now", "x/1", "0/123456789", None, 7])
def test_what_is_no_number_is_refused(text: object) -> None:
    with pytest.raises(LakebaseSettingsError, match="lsn is"):
        read_lsn("lsn", text)


@pytest.mark.parametrize("state", ["SNAPSHOTTING", "", "UNSPECIFIED"])
def test_only_a_table_that_streams_has_committed(state: str) -> None:
    wanted = Commitment(("orders",), "0/1", 0.0, 1.0)
    assert not wanted.is_met([table(state=state)], NO_CONTEXT, 1e9)


def test_a_table_is_idle_when_nothing_was_committed_since_the_wait_began_or_its_last_sync() -> None:
    wanted = Commitment(("orders",), "2/0", 1000.0, 300.0)
    assert not wanted.is_met([table(synced_at=900.0)], NO_CONTEXT, 1299.0)
    assert wanted.is_met([table(synced_at=900.0)], NO_CONTEXT, 1300.0)
    assert not wanted.is_met([table(synced_at=1100.0)], NO_CONTEXT, 1399.0)
    assert wanted.is_met([table(synced_at=1100.0)], NO_CONTEXT, 1400.0)
    assert wanted.idle_tables([table(), table("other")], 1300.0) == ["orders: STREAMING, committed up to 1/0"]
    assert not Commitment(("orders",), "2/0", 1000.0, None).is_met([table()], NO_CONTEXT, 1e9)


def test_all_tables_that_are_not_replicated_are_named() -> None:
    wanted = Commitment(("orders", "gone", "new"), "0/1", 0.0)
    found = [table("orders", "SKIPPED", detail="why"), table("gone", "TERMINATED"), table("other")]
    with pytest.raises(LakebaseChangeFeedError) as caught:
        wanted.is_met(found, NO_CONTEXT, APPEARING_SECONDS)
    text = str(caught.value)
    assert "'orders', which is SKIPPED: why; 'gone', which is TERMINATED: the service does not say why" in text
    assert "'new', which it does not know" in text
    assert (caught.value.error_code, caught.value.retryable) == ("CDF_STATE_TERMINATED", False)


def test_a_new_or_empty_table_gets_time_to_appear() -> None:
    wanted = Commitment(("orders",), "0/1", 1000.0)
    empty = table(state="SKIPPED", detail="Table is empty.")
    for found in ([], [empty]):
        assert not wanted.is_met(found, NO_CONTEXT, 1000.0 + APPEARING_SECONDS - 1)
        with pytest.raises(LakebaseChangeFeedError):
            wanted.is_met(found, NO_CONTEXT, 1000.0 + APPEARING_SECONDS)


def test_tables_are_one_name_or_several() -> None:
    assert read_tables("orders") == ("orders",)
    assert read_tables(["b", "a", "b"]) == ("b", "a")
    for wrong in ("", [], None, {"orders": 1}, ["orders", ""], [1], 7):
        with pytest.raises(LakebaseSettingsError, match="tables is"):
            read_tables(wrong)


def test_the_time_until_a_table_is_idle_is_read() -> None:
    assert read_idle_after(timedelta(minutes=1)) == read_idle_after("60") == 60
    assert read_idle_after(None) is None
    for wrong in (-1, "soon", True):
        with pytest.raises(LakebaseSettingsError, match="idle_after is"):
            read_idle_after(wrong)
