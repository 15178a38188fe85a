"""The columns that the folders in a path name."""

from __future__ import annotations

import pytest

from airflow_provider_lakebase.core.bulk.partitions import Folder, read_folders
from airflow_provider_lakebase.exceptions import LakebaseSettingsError


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("s3://b/t/dt=2026-11-01/land=DE/x.csv", {"dt": "2026-11-01", "land": "DE"}),
        ("/t/a%20b=c%3Dd=e/x.csv", {"a b": "c=d=e"}),
        ("t/dt=__HIVE_DEFAULT_PARTITION__/x.csv", {"dt": None}),
        ("t/dt=/x.csv", {"dt": ""}),
        ("t/=x/dt/x=1.csv", {}),
        ("t/dt=1/dt=1/x.csv", {"dt": "1"}),
        ("the file", {}),
    ],
)
def test_folders_are_read_from_a_path(label: str, expected: dict[str, str | None]):
    assert {name: folder.value for name, folder in read_folders(label).items()} == expected


def test_a_folder_keeps_the_name_that_it_has_in_the_path():
    assert read_folders("t/a%20b=%31/x.csv") == {"a b": Folder("a%20b=%31", "1")}


@pytest.mark.parametrize("label", ["t/dt=1/dt=2/x.csv", "t/dt=__HIVE_DEFAULT_PARTITION__/dt=/x.csv", "t/d=%FF/x.csv"])
def test_folders_that_say_nothing_certain_are_refused(label: str):
    with pytest.raises(LakebaseSettingsError, match="different values|is not UTF-8"):
        read_folders(label)
