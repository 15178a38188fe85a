"""The emulator's own API, ``/_emulator/…``: what a test in another language and the page in the browser control it by.

It needs no token, since only programs on this machine reach it. A web page of elsewhere must not use it through the
browser on this machine: such a request names another host or origin, and is refused.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from email.message import Message
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from airflow_provider_lakebase.emulator.api.messages import Call, Reply
from airflow_provider_lakebase.emulator.api.page import PAGE, PAGE_HEADERS
from airflow_provider_lakebase.emulator.faults import Faults
from airflow_provider_lakebase.emulator.model import overview
from airflow_provider_lakebase.emulator.model.errors import ApiError, Json, internal, invalid
from airflow_provider_lakebase.emulator.model.workspace import Behaviour, Workspace

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator import LakebaseEmulator

PREFIX = "/_emulator/"
LATEST = 50

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_FAULTS = sorted(name for name in vars(Faults) if not name.startswith("_") and name not in ("clear", "take", "pending"))


class Control:
    """Answers the calls of the control API of one emulator."""

    def __init__(self, emulator: LakebaseEmulator, workspace: Workspace) -> None:
        self._emulator = emulator
        self._workspace = workspace

    def answer(self, call: Call, headers: Message) -> Reply | None:
        """Return the reply; None if the path is not one of the control API."""
        if (call.method, call.path) == ("GET", "/"):
            return Reply(302, "", headers={"Location": PREFIX})
        if not call.path.startswith(PREFIX):
            return None
        try:
            _refuse_foreign(call, headers)
            if (call.method, call.path) == ("GET", PREFIX):
                return Reply(200, PAGE, headers=PAGE_HEADERS)
            return Reply(200, self._act(call), headers={"Cache-Control": "no-store"})
        except ApiError as error:
            return Reply(error.status, error.body)
        except (ValueError, RuntimeError) as error:
            return Reply(400, invalid(str(error)).body)
        except Exception as error:
            return Reply(500, internal(error).body)

    def _act(self, call: Call) -> Json:
        path = call.path.removeprefix(PREFIX)
        if (call.method, path) == ("GET", "state"):
            return self._state()
        if (call.method, path) == ("DELETE", "faults"):
            self._emulator.faults.clear()
        elif call.method == "POST" and path.startswith("faults/"):
            _inject(self._emulator.faults, path.removeprefix("faults/"), call.json())
        elif call.method == "POST" and path in _ACTIONS:
            arguments = call.json()
            action = _ACTIONS[path]
            unknown = sorted(set(arguments) - set(action.arguments)) if action.arguments is not None else []
            if unknown:
                raise invalid(f"{path} takes no {', '.join(unknown)}")
            return action.do(self._emulator, arguments) or {}
        else:
            known = ", ".join(["GET state", *(f"POST {name}" for name in _ACTIONS), "POST faults/…", "DELETE faults"])
            raise ApiError(404, "NOT_FOUND", f"No {call.method} {call.path}. There is {known}, below {PREFIX}")
        return {}

    def _state(self) -> Json:
        emulator = self._emulator
        return {
            "workspace_url": emulator.workspace_url,
            "pg_version": emulator.pg_version,
            "port": emulator.port,
            "ca_file": str(emulator.ca_file),
            "settings": emulator.settings,
            "faults": [{"fault": type(each).__name__, **dataclasses.asdict(each)} for each in emulator.faults.pending],
            "principals": {each.role: each.display_name for each in self._workspace.identities.principals()},
            "projects": overview.projects(self._workspace),
            "sessions": overview.sessions(self._workspace),
            "requests": [dataclasses.asdict(each) for each in emulator.requests[-LATEST:]],
            "logins": [dataclasses.asdict(each) for each in emulator.logins[-LATEST:]],
        }


class _Action(NamedTuple):
    """What a POST does, and the names in its body; None are checked by ``do``."""

    do: Callable[[LakebaseEmulator, Json], Json | None]
    arguments: tuple[str, ...] | None = ()


def _of_endpoint(method: str) -> _Action:
    return _Action(lambda emulator, body: getattr(emulator, method)(_text(body, "endpoint")), ("endpoint",))


def _create_branch(emulator: LakebaseEmulator, body: Json) -> Json:
    return {"name": emulator.create_branch(_text(body, "branch_id"), source=_text(body, "source"))}


def _delete_branch(emulator: LakebaseEmulator, body: Json) -> None:
    branch = _text(body, "branch")
    if branch is None:
        raise invalid("Field 'branch' is required")
    emulator.delete_branch(branch)


def _change(emulator: LakebaseEmulator, body: Json) -> None:
    _check_types(inspect.get_annotations(Behaviour), body)
    emulator.change(**body)


_ACTIONS = {
    "suspend": _of_endpoint("suspend"),
    "wake": _of_endpoint("wake"),
    "disable": _of_endpoint("disable"),
    "enable": _of_endpoint("enable"),
    "expire-credentials": _Action(lambda emulator, _: emulator.expire_credentials()),
    "reset": _Action(lambda emulator, _: emulator.reset()),
    "settings": _Action(_change, None),
    "create-branch": _Action(_create_branch, ("branch_id", "source")),
    "delete-branch": _Action(_delete_branch, ("branch",)),
}


def _inject(faults: Faults, name: str, arguments: Json) -> None:
    if name not in _FAULTS:
        raise ApiError(404, "NOT_FOUND", f"There is no fault {name!r}; there are {', '.join(_FAULTS)}")
    method = getattr(faults, name)
    try:
        inspect.signature(method).bind(**arguments)
    except TypeError as error:
        raise invalid(f"{name}: {error}") from None
    _check_types(inspect.get_annotations(getattr(Faults, name)), arguments)
    method(**arguments)


def _text(body: Json, name: str) -> str | None:
    _check_types({name: "str | None"}, {name: body.get(name)})
    value: str | None = body.get(name)
    return value


def _check_types(annotations: Mapping[str, Any], values: Json) -> None:
    """Raise ``ApiError`` if a value is not of its annotation, such as ``int | None``."""
    for name, value in values.items():
        kinds = str(annotations.get(name, "")).split(" | ")
        is_number = isinstance(value, int) and not isinstance(value, bool)
        allowed = {
            "None": value is None,
            "bool": isinstance(value, bool),
            "float": is_number or isinstance(value, float),
            "int": is_number,
            "str": isinstance(value, str),
        }
        if name in annotations and not any(allowed[kind] for kind in kinds):
            raise invalid(f"Field '{name}' must be of type {' or '.join(kinds)}, not {value!r}")


def _refuse_foreign(call: Call, headers: Message) -> None:
    """Raise ``ApiError`` for a request from a page of another site, unless it follows a link to the emulator's page."""
    ours = urlsplit(call.url)
    hosts = [f"{host}:{ours.port}" for host in _LOOPBACK]
    origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site", "none")
    is_link = (call.method, call.path) == ("GET", PREFIX) and origin is None
    if (
        headers.get("Host", "") not in hosts
        or (origin is not None and origin not in [f"{ours.scheme}://{host}" for host in hosts])
        or (site not in ("none", "same-origin") and not is_link)
    ):
        raise ApiError(403, "PERMISSION_DENIED", "The emulator is controlled from this machine only")
