"""What a request says of an endpoint: its size, its suspends and its computes. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_lakebase.emulator.model.errors import Json, invalid, not_imitated
from airflow_provider_lakebase.emulator.model.fields import read_choice, read_duration, read_flag, read_object

MIN_CU, MAX_CU, WIDEST_CU = 0.5, 64.0, 16.0
MIN_SUSPEND, MAX_SUSPEND = 60.0, 604800.0
SUSPENSION = ("suspend_timeout_duration", "no_suspension")

_LIMITS = {"autoscaling_limit_min_cu", "autoscaling_limit_max_cu"}
FIELDS = {"endpoint_type", "disabled", "group", "settings", *_LIMITS, *SUSPENSION}
_SPEC = {
    "spec.autoscaling_limit_min_cu": ("spec.autoscaling_limit_min_cu",),
    "spec.autoscaling_limit_max_cu": ("spec.autoscaling_limit_max_cu",),
    "spec.disabled": ("spec.disabled",),
    "spec.group.min": ("spec.group.min",),
    "spec.group.max": ("spec.group.max",),
    "spec.group.enable_readable_secondaries": ("spec.group.enable_readable_secondaries",),
    "spec.settings.pg_settings": ("spec.settings.pg_settings",),
    "spec.suspension": tuple(f"spec.{name}" for name in SUSPENSION),
}
#: The paths of an endpoint's update mask.
PATHS = {**_SPEC, "spec": tuple(field for fields in _SPEC.values() for field in fields)}
FIXED = {"spec.endpoint_type": "the type of an endpoint cannot change"}


@dataclass(frozen=True)
class Size:
    """How an endpoint is made.

    :param suspend_timeout: seconds without traffic until a suspend; infinite for none
    :param computes: the number of computes in its group
    :param readable: whether the computes beside the first take read-only sessions
    """

    suspend_timeout: float
    min_cu: float = 1.0
    max_cu: float = 1.0
    computes: int = 1
    readable: bool = False
    disabled: bool = False

    @property
    def suspends(self) -> bool:
        """Return whether it suspends by itself."""
        return math.isfinite(self.suspend_timeout)


def flat(spec: Json) -> Json:
    """Return a spec's fields as path → value; raise ``ApiError`` for an unknown field."""
    found: Json = {}
    for name, value in read_object("endpoint.spec", spec, FIELDS).items():
        if name == "group":
            group = read_object("endpoint.spec.group", value, {"min", "max", "enable_readable_secondaries"})
            found |= {f"spec.group.{each}": group[each] for each in group}
        elif name == "settings":
            settings = read_object("endpoint.spec.settings", value, {"pg_settings"})
            found |= {f"spec.settings.{each}": settings[each] for each in settings}
        elif name != "endpoint_type":
            found[f"spec.{name}"] = value
    return found


def resized(size: Size, fields: Json) -> Size:
    """Return the size with the fields of a request; raise ``ApiError`` if it is not allowed."""
    if fields.get("spec.settings.pg_settings"):
        raise not_imitated("the field 'endpoint.spec.settings.pg_settings'")
    changes: Json = {}
    for name in ("min", "max"):
        value = fields.get(f"spec.autoscaling_limit_{name}_cu")
        if value is not None:
            changes[f"{name}_cu"] = _cu(f"spec.autoscaling_limit_{name}_cu", value)
    if fields.get("spec.disabled") is not None:
        changes["disabled"] = read_flag("spec.disabled", fields["spec.disabled"])
    found = replace(size, **changes, **_suspension(fields), **_group(size, fields))
    if found.min_cu > found.max_cu:
        raise invalid("Field 'spec.autoscaling_limit_min_cu' cannot exceed 'spec.autoscaling_limit_max_cu'")
    if found.max_cu - found.min_cu > WIDEST_CU:
        raise invalid(
            "The difference of 'spec.autoscaling_limit_max_cu' and 'spec.autoscaling_limit_min_cu' must not exceed "
            f"{WIDEST_CU:g}"
        )
    return found


def _cu(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not MIN_CU <= value <= MAX_CU:
        raise invalid(f"Field '{field}' must be between {MIN_CU:g} and {MAX_CU:g}, not {value!r}")
    return float(value)


def _suspension(fields: Json) -> Json:
    spec = {name: fields.get(f"spec.{name}") for name in SUSPENSION}
    chosen = read_choice("spec", spec, SUSPENSION)
    if chosen is None:
        return {}
    if chosen == "no_suspension":
        if not read_flag("spec.no_suspension", spec[chosen]):
            raise invalid("Field 'spec.no_suspension' must be true if it is set")
        return {"suspend_timeout": math.inf}
    return {"suspend_timeout": read_suspend_timeout("spec.suspend_timeout_duration", spec[chosen])}


def read_suspend_timeout(field: str, value: Any) -> float:
    """Return seconds; raise ``ApiError`` unless they are between a minute and a week."""
    seconds = read_duration(field, value)
    if not MIN_SUSPEND <= seconds <= MAX_SUSPEND:
        raise invalid(f"Field '{field}' must be between {MIN_SUSPEND:g}s and {MAX_SUSPEND:g}s, not {value!r}")
    return seconds


def _group(size: Size, fields: Json) -> Json:
    changes: Json = {}
    given = {name: fields[f"spec.group.{name}"] for name in ("min", "max") if f"spec.group.{name}" in fields}
    if given:
        smallest, largest = given.get("min", size.computes), given.get("max", size.computes)
        if {type(smallest), type(largest)} != {int} or smallest != largest or largest < 1:
            raise invalid("Fields 'spec.group.min' and 'spec.group.max' must be equal and at least 1")
        changes["computes"] = largest
    readable = fields.get("spec.group.enable_readable_secondaries")
    if readable is not None:
        changes["readable"] = read_flag("spec.group.enable_readable_secondaries", readable)
    if changes.get("readable", size.readable) and changes.get("computes", size.computes) < 2:
        raise invalid("Field 'spec.group.enable_readable_secondaries' needs a group with more than one compute")
    return changes
