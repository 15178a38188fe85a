"""Requests and replies of the workspace API."""

from __future__ import annotations

import pytest

from airflow_provider_lakebase.emulator.api.messages import TOKEN_PATH, Call, fault_reply
from airflow_provider_lakebase.emulator.faults import Answer
from airflow_provider_lakebase.emulator.model.errors import ApiError, invalid, not_found


def call(body: bytes = b"", path: str = "/api/2.0/postgres/credentials") -> Call:
    return Call("POST", "http://127.0.0.1:1", path, "", body)


def test_a_body_is_a_json_object_and_empty_without_one():
    assert call(b'{"ttl": "300s"}').json() == {"ttl": "300s"}
    assert call().json() == {}


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"{", b"\xff"])
def test_any_other_body_is_a_malformed_request(body: bytes):
    with pytest.raises(ApiError) as raised:
        call(body).json()
    assert (raised.value.status, raised.value.body["error_code"]) == (400, "MALFORMED_REQUEST")


def test_errors_have_databricks_form():
    assert invalid("x").body == {"error_code": "INVALID_PARAMETER_VALUE", "message": "x"}
    error = not_found("branch")
    assert error.status == 404
    assert error.body["message"].startswith("branch id not found [TraceId: ")


def test_a_fault_answers_in_the_form_of_its_path():
    fault = Answer("", 429, "RESOURCE_EXHAUSTED", "slow down", 7)
    reply = fault_reply(call(), fault)
    assert (reply.status, reply.headers) == (429, {"Retry-After": "7"})
    assert reply.body == {"error_code": "RESOURCE_EXHAUSTED", "message": "slow down"}
    oauth = fault_reply(call(path=TOKEN_PATH), fault)
    assert oauth.body == {"error": "RESOURCE_EXHAUSTED", "error_description": "slow down"}


def test_a_fault_without_retry_after_sends_no_such_header():
    assert fault_reply(call(), Answer("", 500, "INTERNAL_ERROR", "x", None)).headers == {}
