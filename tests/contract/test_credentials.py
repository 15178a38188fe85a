"""POST /api/2.0/postgres/credentials: its result and its limits."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from databricks.sdk.errors import InvalidParameterValue
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def _seconds_left(credential: Any) -> float:
    return float(credential.expire_time.ToSeconds()) - datetime.datetime.now(datetime.UTC).timestamp()


@pytest.mark.belief(
    "a credential is a token with an expire_time, by default an hour from now",
    source="databricks-sdk-py service/postgres.py generate_database_credential; Databricks docs: Authentication",
    sure="documented",
)
def test_credential_lives_an_hour(place: Any) -> None:
    credential = place.client().postgres.generate_database_credential(place.endpoint)
    assert len(credential.token) > 64
    assert 3500 < _seconds_left(credential) <= 3601


@pytest.mark.belief(
    "every call mints a new credential",
    source="no source; nothing of ours needs it",
    sure="inferred",
)
def test_every_credential_is_new(place: Any) -> None:
    assert place.credential() != place.credential()


@pytest.mark.belief(
    "ttl shortens the lifetime of a credential, down to five minutes",
    source="databricks-sdk-py service/postgres.py generate_database_credential",
    sure="documented",
)
def test_ttl_shortens_the_life(place: Any) -> None:
    postgres = place.client().postgres
    credential = postgres.generate_database_credential(place.endpoint, ttl=Duration(seconds=300))
    assert 240 < _seconds_left(credential) <= 301


@pytest.mark.belief(
    "a request may have expire_time instead of ttl",
    source="databricks-sdk-py service/postgres.py generate_database_credential",
    sure="documented",
)
def test_expire_time_is_taken(place: Any) -> None:
    wanted = Timestamp(seconds=int(datetime.datetime.now(datetime.UTC).timestamp()) + 1800)
    credential = place.client().postgres.generate_database_credential(place.endpoint, expire_time=wanted)
    assert abs(credential.expire_time.ToSeconds() - wanted.seconds) <= 1


@pytest.mark.parametrize("seconds", [299, 3601])
@pytest.mark.belief(
    "a ttl under 300 s or over 3600 s is refused: 400 INVALID_PARAMETER_VALUE",
    source="databricks-sdk-py service/postgres.py (the bounds); the error code is a guess",
    sure="inferred",
)
def test_ttl_out_of_bounds_is_refused(place: Any, seconds: int) -> None:
    with pytest.raises(InvalidParameterValue):
        place.credential(ttl=seconds)


@pytest.mark.belief(
    "a request without an endpoint is refused: 400 `Field 'endpoint' is required`",
    source="Databricks docs, Lakebase: Connect external apps, table of errors",
    sure="documented",
)
def test_endpoint_is_required(place: Any) -> None:
    with pytest.raises(InvalidParameterValue, match="Field 'endpoint' is required"):
        place.client().api_client.do("POST", "/api/2.0/postgres/credentials", body={})
