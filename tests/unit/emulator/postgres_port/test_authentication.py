from __future__ import annotations

import pytest

from airflow_provider_lakebase.emulator.postgres_port.authentication import is_password_of

# The example of RFC 7677, written as PostgreSQL keeps it.
SECRET = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
    ":wfPLwcE6nTWhTamQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


@pytest.mark.parametrize(("password", "expected"), [("pencil", True), ("pencils", False), ("", False)])
def test_password_is_held_against_its_secret(password: str, expected: bool) -> None:
    assert is_password_of(SECRET, password) is expected


def test_older_kind_of_secret_is_no_match() -> None:
    assert not is_password_of("md5d0b5d4d5d0b5d4d5d0b5d4d5d0b5d4d5", "pencil")
