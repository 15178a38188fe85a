"""The emulator's own API over HTTP."""

from __future__ import annotations

import inspect
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from airflow_provider_lakebase.emulator import LakebaseEmulator
from airflow_provider_lakebase.emulator.faults import Faults

Call = Callable[..., tuple[int, Any]]


@pytest.fixture
def call(emulator: LakebaseEmulator) -> Call:
    def call(method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Return status and JSON of the answer."""
        data = None if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{emulator.workspace_url}/_emulator/{path}", data, named, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)

    return call


def test_endpoints_are_driven_by_it(emulator: LakebaseEmulator, call: Call):
    for action, state, disabled in (
        ("suspend", "IDLE", False),
        ("wake", "ACTIVE", False),
        ("disable", "IDLE", True),
        ("enable", "IDLE", False),
    ):
        assert call("POST", action, {"endpoint": emulator.endpoint}) == (200, {})
        assert (emulator.state, emulator.disabled) == (state, disabled)
    assert call("POST", "reset") == (200, {})
    assert emulator.state == "ACTIVE"


def test_credentials_settings_and_faults(emulator: LakebaseEmulator, call: Call, connect: Any):
    connect().close()
    call("POST", "expire-credentials")
    with pytest.raises(psycopg.OperationalError):
        connect()
    assert call("POST", "settings", {"wake_seconds": 2, "max_sessions": 1}) == (200, {})
    assert (emulator.wake_seconds, emulator.max_sessions) == (2, 1)
    assert call("POST", "faults/answer", {"path_part": "/credentials", "status": 429, "retry_after": 1})[0] == 200
    fault = {"status": 429, "retry_after": 1, "error_code": "RESOURCE_EXHAUSTED"}
    assert fault.items() <= call("GET", "state")[1]["faults"][0].items()
    assert call("DELETE", "faults") == (200, {})
    assert emulator.faults.pending == []
    call("POST", "reset")
    assert (emulator.wake_seconds, emulator.max_sessions) == (0.05, None)


def test_every_fault_can_be_injected(emulator: LakebaseEmulator, call: Call):
    values = {"int": 1, "float": 0.5, "str": "x"}
    names = [name for name in vars(Faults) if name not in ("clear", "pending", "take") and not name.startswith("_")]
    assert len(names) > 9
    for name in names:
        parameters = list(inspect.signature(getattr(Faults, name)).parameters.values())[1:]
        arguments = {each.name: values[each.annotation.split(" | ")[0]] for each in parameters}
        assert call("POST", f"faults/{name}", arguments) == (200, {})
    assert len(call("GET", "state")[1]["faults"]) == len(names)
    emulator.faults.clear()


def test_branches_come_and_go(call: Call):
    name = call("POST", "create-branch", {"branch_id": "by-control"})[1]["name"]
    (project,) = call("GET", "state")[1]["projects"]
    assert [each["name"] for each in project["branches"]] == [project["status"]["default_branch"], name]
    assert [each["name"] for each in project["branches"][1]["endpoints"]] == [f"{name}/endpoints/primary"]
    assert call("POST", "delete-branch", {"branch": name}) == (200, {})
    assert call("POST", "delete-branch", {"branch": name})[0] == 404


def test_the_state_shows_sessions_requests_and_logins_without_secrets(
    emulator: LakebaseEmulator, call: Call, connect: Any
):
    with connect(application_name="a test"):
        _, state = call("GET", "state")
    assert {"application_name": "a test", "user": emulator.administrator.role}.items() <= state["sessions"][-1].items()
    assert state["requests"][-1] == {
        "method": "POST",
        "path": "/api/2.0/postgres/credentials",
        "status": 200,
        "principal": emulator.administrator.client_id,
    }
    assert state["logins"][-1]["outcome"] == "ok"
    assert not [secret for secret in emulator.secrets if secret in json.dumps(state)]


def test_a_suspended_endpoint_is_not_woken_by_looking(emulator: LakebaseEmulator, call: Call):
    call("POST", "suspend")
    assert call("GET", "state")[1]["sessions"] == []
    assert emulator.state == "IDLE"


def test_its_calls_are_not_recorded_and_take_no_fault(emulator: LakebaseEmulator, call: Call):
    call("POST", "reset")
    emulator.faults.drop("")
    assert call("GET", "state")[0] == 200
    assert emulator.requests == []
    emulator.faults.clear()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "suspend", {"endpoint": "x"}, 400, "there is no endpoint 'x'"),
        ("POST", "suspend", {"endpoint": 1}, 400, "Field 'endpoint' must be of type str or None, not 1"),
        ("POST", "wake", {"endpiont": "x"}, 400, "wake takes no endpiont"),
        ("POST", "settings", {"wake_second": 1}, 400, "there is no setting 'wake_second'"),
        ("POST", "settings", {"wake_seconds": -1}, 400, "wake_seconds cannot be -1"),
        ("POST", "settings", {"pipeline_seconds": float("nan")}, 400, "pipeline_seconds cannot be nan"),
        ("POST", "settings", {"wake_seconds": "1"}, 400, "Field 'wake_seconds' must be of type float, not '1'"),
        ("POST", "settings", {"native_login": 1}, 400, "Field 'native_login' must be of type bool, not 1"),
        ("POST", "faults/answer", {"path_part": ""}, 400, "answer: missing a required argument: 'status'"),
        ("POST", "faults/answer", {"path_part": "", "status": "429"}, 400, "Field 'status' must be of type int"),
        ("POST", "faults/drop", {"path_part": "", "time": 2}, 400, "drop: got an unexpected keyword argument 'time'"),
        ("POST", "faults/clear", {}, 404, "There is no fault 'clear'; there are answer, "),
        ("POST", "delete-branch", {}, 400, "Field 'branch' is required"),
        ("POST", "nothing", {}, 404, "No POST /_emulator/nothing. There is GET state, POST suspend, "),
        ("GET", "suspend", None, 404, "No GET /_emulator/suspend"),
        ("POST", "reset", [], 400, "a JSON object is expected"),
    ],
)
def test_what_it_does_not_know_is_refused(call: Call, method: str, path: str, body: Any, status: int, said: str):
    found, answer = call(method, path, body)
    assert found == status
    assert said in answer["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=str,
)
def test_a_web_page_of_elsewhere_is_refused(emulator: LakebaseEmulator, call: Call, headers: dict[str, str]):
    for method, path in (("POST", "disable"), ("GET", "state"), ("DELETE", "faults")):
        assert call(method, path, **headers)[0] == 403
    assert not emulator.disabled


def test_the_page_itself_may_use_it(emulator: LakebaseEmulator, call: Call):
    for name in ("127.0.0.1", "localhost"):
        host = f"{name}:{emulator.workspace_url.rpartition(':')[2]}"
        headers = {"Host": host, "Origin": f"http://{host}", "Sec_Fetch_Site": "same-origin"}
        assert call("GET", "state", **headers)[0] == 200
