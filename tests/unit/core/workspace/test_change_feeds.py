from __future__ import annotations

import pytest

from airflow_provider_lakebase.core.workspace.change_feeds import feed_name, feed_spec
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

BRANCH = "projects/shop/branches/production"
FEED = f"{BRANCH}/databases/databricks-postgres/cdf-configs/app"


def test_a_feed_is_named_by_its_id_or_in_full() -> None:
    assert feed_name(BRANCH, "app") == feed_name("", FEED) == FEED
    for wrong in ("App", "my-app", "", "a" * 64, f"{BRANCH}/cdf-configs/app", None, f"{FEED}/cdf-statuses/x"):
        with pytest.raises(LakebaseSettingsError, match="is not the ID of a change feed"):
            feed_name(BRANCH, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["postgres_schema", "catalog", "schema"])
@pytest.mark.parametrize("wrong", ["", " ", None, 7])
def test_each_field_of_a_feed_is_a_name(field: str, wrong: object) -> None:
    names: dict[str, object] = {"postgres_schema": "app", "catalog": "main", "schema": "history", field: wrong}
    with pytest.raises(LakebaseSettingsError, match=f"{field} is"):
        feed_spec(**names)  # type: ignore[arg-type]
