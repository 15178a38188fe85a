from __future__ import annotations

import pytest

from airflow_provider_lakebase.emulator.api.messages import TOKEN_PATH, Call, fault_reply
from airflow_provider_lakebase.emulator.faults import Answer, CutAfter, Delay, Drop, Faults, HangUp, RequestFault


@pytest.fixture
def faults() -> Faults:
    return Faults()


def test_fault_is_used_up(faults: Faults) -> None:
    faults.hang_up(times=2)
    assert [faults.take(HangUp) for _ in range(3)] == [HangUp(), HangUp(), None]


def test_kinds_do_not_disturb_each_other(faults: Faults) -> None:
    faults.cut_after(10)
    assert faults.take(HangUp) is None
    assert faults.take(RequestFault, "/any") is None
    assert faults.take(CutAfter) == CutAfter(10)


def test_request_takes_the_oldest_fault_that_fits_its_path(faults: Faults) -> None:
    faults.drop("/credentials")
    faults.delay("", 1)
    faults.answer("/oidc/v1/token", status=503)
    assert faults.take(RequestFault, "/oidc/v1/token") == Delay("", 1)
    assert isinstance(faults.take(RequestFault, "/oidc/v1/token"), Answer)
    assert faults.take(RequestFault, "/api/2.0/postgres/credentials") == Drop("/credentials")


def test_clear_forgets_all(faults: Faults) -> None:
    faults.hang_up()
    faults.drop("")
    faults.clear()
    assert (faults.take(HangUp), faults.take(RequestFault)) == (None, None)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/2.0/postgres/credentials", {"error_code": "RESOURCE_EXHAUSTED", "message": "slow down"}),
        (TOKEN_PATH, {"error": "RESOURCE_EXHAUSTED", "error_description": "slow down"}),
    ],
)
def test_answer_has_the_form_of_its_path(faults: Faults, path: str, expected: dict[str, str]) -> None:
    faults.answer("", status=429, message="slow down", retry_after=7)
    fault = faults.take(Answer)
    assert fault
    reply = fault_reply(Call("POST", "http://127.0.0.1:1", path, "", b""), fault)
    assert (reply.status, reply.body, reply.headers) == (429, expected, {"Retry-After": "7"})


def test_answer_takes_any_status_and_code(faults: Faults) -> None:
    faults.answer("", status=502)
    faults.answer("", status=400, error_code="BAD_REQUEST")
    codes = [fault.error_code for fault in (faults.take(Answer), faults.take(Answer)) if fault]
    assert codes == ["UNKNOWN", "BAD_REQUEST"]


@pytest.mark.parametrize("times", [0, -1, 10**9])
def test_number_of_times_is_sensible(faults: Faults, times: int) -> None:
    with pytest.raises(ValueError, match="times is from 1"):
        faults.drop("", times)
    assert faults.pending == []
