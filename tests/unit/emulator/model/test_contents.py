"""IDs of roles and databases that SQL made."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.model.contents import Ids


def test_names_that_look_alike_have_ids_of_their_own() -> None:
    ids = Ids("role-", lambda: 0.0)
    first, second = ids.of("app_user")[0], ids.of("app-user")[0]
    assert (first, second.startswith("role-")) == ("app-user", True)
    assert [ids.of("app-user")[0], ids.of("app_user")[0]] == [second, first]
