"""Check what a task asks for, and write it as the API takes it. Nothing is sent before all of it is checked.

This module is light: operators import it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_lakebase.core.connection.resource_names import RESOURCE_ID
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

MAX_LIFE = timedelta(days=30)
MIN_CU, MAX_CU, MAX_CU_SPREAD = 0.5, 64.0, 16.0
MIN_SUSPEND, MAX_SUSPEND = 60, 604_800
_LSN = r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}"

_KINDS = {"branches": "a branch", "endpoints": "an endpoint", "snapshots": "a snapshot"}

Duration = timedelta | float | str
"""A ``timedelta``, or seconds; seconds may be a text, such as a template gives."""
Time = datetime | str
"""A time with its time zone; as a text in ISO 8601, such as a template gives."""


def resource_name(parent: str, collection: str, given: str) -> str:
    """Return the full name of a resource.

    :param parent: resource name of the project or branch it belongs to
    :param collection: ``branches``, ``endpoints`` or ``snapshots``
    :param given: its ID, or its full name
    :raises LakebaseSettingsError: if it is neither, or the name of a resource of another project or branch
    """
    if re.fullmatch(RESOURCE_ID, str(given)):
        return f"{parent}/{collection}/{given}"
    above = f"/branches/{RESOURCE_ID}" if collection == "endpoints" else ""
    if re.fullmatch(f"projects/{RESOURCE_ID}{above}/{collection}/{RESOURCE_ID}", str(given)):
        return require_within(parent, str(given))
    hint = "Use lower-case letters, digits and hyphens, at most 63, beginning with a letter; or the full resource name."
    raise LakebaseSettingsError(f"{given!r} is not the ID of {_KINDS[collection]}", hint=hint)


def require_within(parent: str, name: str) -> str:
    """Return a full name, if it is that of a resource of a project or branch.

    :param parent: resource name of the project or branch
    :param name: the full name
    :raises LakebaseSettingsError: if it belongs to another one
    """
    if not name.startswith(f"{parent}/"):
        hint = f"Name a resource of {parent}, or another project or branch."
        raise LakebaseSettingsError(f"{name} does not belong to {parent}", hint=hint)
    return name


def expiry_spec(
    *,
    ttl: Duration | None = None,
    expire_time: Time | None = None,
    no_expiry: bool | None = None,
    longest: timedelta | None = MAX_LIFE,
) -> dict[str, Any]:
    """Return when a branch or snapshot expires, as fields of its ``spec``.

    :param ttl: how long it lives
    :param expire_time: until when it lives
    :param no_expiry: True if it does not expire
    :param longest: how far away the expiry may be; None for a snapshot, which has no such limit
    :raises LakebaseSettingsError: unless exactly one is given, in the future and not too far away
    """
    check_flags(no_expiry=no_expiry)
    given = list(_present(ttl=ttl, expire_time=expire_time, no_expiry=no_expiry or None))
    if len(given) != 1:
        what = f"{' and '.join(given)} are given" if given else "No expiry is given"
        raise LakebaseSettingsError(what, hint="Give exactly one of ttl, expire_time and no_expiry=True.")
    far = f" and at most {longest.days} days" if longest else ""
    if ttl is not None and ttl != "":
        seconds = read_duration("ttl", ttl)
        _check("ttl", ttl, 0 < seconds <= (longest or timedelta.max).total_seconds(), f"more than 0{far}")
        return {"ttl": f"{seconds}s"}
    if expire_time is not None and expire_time != "":
        time = read_time("expire_time", expire_time)
        life = time - datetime.now(UTC)
        _check("expire_time", expire_time, timedelta(0) < life <= (longest or life), f"in the future{far} away")
        return {"expire_time": write_time(time)}
    return {"no_expiry": True}


def source_spec(
    project: str,
    *,
    source: str | None = None,
    source_time: Time | None = None,
    source_lsn: str | None = None,
    source_snapshot: str | None = None,
) -> dict[str, Any]:
    """Return what a branch is copied from, as fields of its ``spec``.

    :param project: resource name of the project
    :param source: branch, by ID or full name; by default the project's default branch
    :param source_time: point in time on it; by default now
    :param source_lsn: log sequence number on it
    :param source_snapshot: snapshot, by ID or full name
    :raises LakebaseSettingsError: if more than one of time, log sequence number and snapshot is given
    """
    points = _present(source_time=source_time, source_lsn=source_lsn, source_snapshot=source_snapshot)
    given = _present(source=source, **points)
    if len(points) > 1 or {"source", "source_snapshot"} <= set(given):
        clash = " and ".join(points if len(points) > 1 else ("source", "source_snapshot"))
        raise LakebaseSettingsError(f"{clash} are given", hint="Give one of them.")
    if "source_snapshot" in given:
        return {"source_snapshot": resource_name(project, "snapshots", given["source_snapshot"])}
    spec: dict[str, Any] = {}
    if "source" in given:
        spec["source_branch"] = resource_name(project, "branches", given["source"])
    if "source_time" in given:
        spec["source_branch_time"] = write_time(read_time("source_time", given["source_time"]))
    if "source_lsn" in given:
        _check(
            "source_lsn", source_lsn, re.fullmatch(_LSN, str(source_lsn)), "a log sequence number, such as 16/B374D848"
        )
        spec["source_branch_lsn"] = source_lsn
    return spec


def check_if_exists(if_exists: Any) -> None:
    """Refuse what is none of the ways to treat a branch that exists.

    :param if_exists: the argument
    :raises LakebaseSettingsError: unless it is ``use``, ``replace`` or ``fail``
    """
    _check("if_exists", if_exists, if_exists in ("use", "replace", "fail"), "'use', 'replace' or 'fail'")


def compute_spec(
    *,
    min_cu: float | str | None = None,
    max_cu: float | str | None = None,
    suspend_timeout: Duration | None = None,
    no_suspension: bool | None = None,
    disabled: bool | None = None,
) -> dict[str, Any]:
    """Return the size and the suspension of an endpoint, as fields of its ``spec``; only those that are given.

    :param min_cu: least compute units, from 0.5
    :param max_cu: most compute units, up to 64, and at most 16 more than the least
    :param suspend_timeout: time without use after which it is suspended, from 60 s to 7 days
    :param no_suspension: True if it is never suspended
    :param disabled: whether it refuses connections
    :raises LakebaseSettingsError: for a value out of range, or if suspend_timeout and no_suspension are given
    """
    check_flags(no_suspension=no_suspension, disabled=disabled)
    spec: dict[str, Any] = {}
    for name, field, value in (
        ("min_cu", "autoscaling_limit_min_cu", min_cu),
        ("max_cu", "autoscaling_limit_max_cu", max_cu),
    ):
        if value is not None:
            spec[field] = read_number(name, value)
            _check(name, value, MIN_CU <= spec[field] <= MAX_CU, "from 0.5 to 64 compute units")
    check_spread(spec)
    if suspend_timeout is not None and no_suspension:
        raise LakebaseSettingsError("suspend_timeout and no_suspension are given", hint="Give one of them.")
    if suspend_timeout is not None:
        seconds = read_duration("suspend_timeout", suspend_timeout)
        _check("suspend_timeout", suspend_timeout, MIN_SUSPEND <= seconds <= MAX_SUSPEND, "from 60 s to 7 days")
        spec["suspend_timeout_duration"] = f"{seconds}s"
    if no_suspension is False:
        hint = "Give suspend_timeout instead: the API needs to know after how long the endpoint is suspended."
        raise LakebaseSettingsError("no_suspension is False", hint=hint)
    return {**spec, **_present(no_suspension=no_suspension, disabled=disabled)}


def compute_arguments(spec: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Return size and suspension as the arguments of :func:`compute_spec` that set them again.

    :param spec: of an endpoint, complete
    :param changed: the fields to return; of ``suspend_timeout`` and ``no_suspension`` the one that is set
    """
    arguments: dict[str, Any] = {
        argument: spec.get(field)
        for argument, field in (
            ("min_cu", "autoscaling_limit_min_cu"),
            ("max_cu", "autoscaling_limit_max_cu"),
            ("disabled", "disabled"),
        )
        if field in changed
    }
    if "suspend_timeout_duration" in changed or "no_suspension" in changed:
        timeout = spec.get("suspend_timeout_duration")
        arguments |= {"suspend_timeout": int(timeout.removesuffix("s"))} if timeout else {"no_suspension": True}
    return arguments


def check_spread(spec: Mapping[str, Any]) -> None:
    """Refuse a size that the service refuses.

    :param spec: of an endpoint
    :raises LakebaseSettingsError: unless 0 <= max - min <= 16
    """
    least, most = spec.get("autoscaling_limit_min_cu"), spec.get("autoscaling_limit_max_cu")
    if least is not None and most is not None and not 0 <= most - least <= MAX_CU_SPREAD:
        hint = "Let max_cu be at least min_cu, and at most 16 more."
        raise LakebaseSettingsError(f"min_cu is {least:g} and max_cu is {most:g}", hint=hint)


def update_paths(spec: Mapping[str, Any]) -> list[str]:
    """Return the paths of an update mask for the fields of a ``spec``.

    :param spec: of a branch or endpoint
    """
    paths: dict[str, None] = {}
    for name, value in spec.items():
        below = [f"spec.{name}.{each}" for each in value] if isinstance(value, Mapping) else []
        paths |= dict.fromkeys(below or [f"spec.{_ONE_OF.get(name, name)}"])
    return list(paths)


_ONE_OF = {
    "ttl": "expiration",
    "expire_time": "expiration",
    "no_expiry": "expiration",
    "suspend_timeout_duration": "suspension",
    "no_suspension": "suspension",
}
"""Fields of which only one is set; the mask names them by what they are about."""


def check_flags(**flags: bool | None) -> None:
    """Refuse a flag that is not a truth value: a text such as ``"False"`` would count as True.

    :param flags: the flags by argument
    :raises LakebaseSettingsError: unless each is True, False or None
    """
    for name, value in flags.items():
        _check(name, value, value is None or isinstance(value, bool), "True or False")


def read_duration(name: str, value: Duration) -> int:
    """Return whole seconds.

    :param name: of the argument, for messages
    :param value: a ``timedelta``, or seconds as a number or text
    :raises LakebaseSettingsError: if it is something else
    """
    seconds = read_seconds(name, value)
    _check(name, value, seconds == int(seconds), "whole seconds")
    return int(seconds)


def read_seconds(name: str, value: Duration) -> float:
    """Return seconds.

    :param name: of the argument, for messages
    :param value: a ``timedelta``, or seconds as a number or text
    :raises LakebaseSettingsError: if it is something else
    """
    return (
        value.total_seconds()
        if isinstance(value, timedelta)
        else read_number(name, value, "a timedelta, or a number of seconds")
    )


def read_wait(name: str, value: Duration) -> float:
    """Return the seconds that a wait, or the pause between two polls, lasts.

    :param name: of the argument, for messages
    :param value: a ``timedelta``, or seconds as a number or text
    :raises LakebaseSettingsError: unless it is more than 0
    """
    seconds = read_seconds(name, value)
    _check(name, value, seconds > 0, "more than 0 seconds")
    return seconds


def read_number(name: str, value: float | str, wanted: str = "a number") -> float:
    """Return a number.

    :param name: of the argument, for messages
    :param value: a number, also as a text
    :param wanted: what it must be, for messages
    :raises LakebaseSettingsError: if it is something else
    """
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (OverflowError, TypeError, ValueError):
        number = math.nan
    _check(name, value, math.isfinite(number), wanted)
    return number


def read_time(name: str, value: Time) -> datetime:
    """Return a time in UTC.

    :param name: of the argument, for messages
    :param value: a ``datetime``, or a text in ISO 8601
    :raises LakebaseSettingsError: if it is something else, has no time zone, or has no counterpart in UTC
    """
    time: datetime | None = None
    with suppress(ValueError, OverflowError):
        given = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(given, datetime) and given.tzinfo is not None:
            time = given.astimezone(UTC)
    if time is None:
        hint = "It must be a datetime with a time zone, or such a text in ISO 8601, in the years 1 to 9999 of UTC."
        raise LakebaseSettingsError(f"{name} is {value!r}", hint=hint)
    return time


def write_time(time: datetime) -> str:
    """Return a time as the API takes it.

    :param time: with its time zone
    """
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value != ""}


def _check(name: str, value: Any, is_right: Any, wanted: str) -> None:
    if not is_right:
        raise LakebaseSettingsError(f"{name} is {value!r}", hint=f"It must be {wanted}.")
