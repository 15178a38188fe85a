"""What a request says of a project. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_lakebase.emulator.model.endpoint_specs import SUSPENSION, Size, resized
from airflow_provider_lakebase.emulator.model.errors import Json, invalid, not_imitated
from airflow_provider_lakebase.emulator.model.fields import duration, read_duration, read_flag, read_object, read_text

SHORTEST_HISTORY, LONGEST_HISTORY = 2 * 86400.0, 35 * 86400.0

_PLAIN = (
    "budget_policy_id",
    "custom_tags",
    "default_branch",
    "display_name",
    "enable_pg_native_login",
    "history_retention_duration",
)
_LIMITS = ("autoscaling_limit_min_cu", "autoscaling_limit_max_cu")
_DEFAULTS = tuple(f"spec.default_endpoint_settings.{name}" for name in (*_LIMITS, *SUSPENSION, "pg_settings"))
_ALL = (*(f"spec.{name}" for name in _PLAIN), *_DEFAULTS)
#: The paths of a project's update mask. Terraform's names the initial specs too, which an update does not use.
PATHS = {
    **{f"spec.{name}": (f"spec.{name}",) for name in _PLAIN},
    **{path: (path,) for path in _DEFAULTS if path.rsplit(".", 1)[1] not in SUSPENSION},
    "spec.default_endpoint_settings.suspension": tuple(f"spec.default_endpoint_settings.{name}" for name in SUSPENSION),
    "spec.default_endpoint_settings": _DEFAULTS,
    "spec": _ALL,
    "*": _ALL,
    "initial_branch_spec": (),
    "initial_endpoint_spec": (),
}
FIXED = {"spec.pg_version": "the version of a project cannot change"}


@dataclass(frozen=True)
class Settings:
    """The settings of a project."""

    display_name: str
    endpoint_size: Size
    history_seconds: float = 7 * 86400.0
    native_login: bool = False
    budget_policy_id: str | None = None
    custom_tags: tuple[Json, ...] = ()

    def json(self) -> Json:
        """Return the fields of a status."""
        size = self.endpoint_size
        defaults: Json = {"autoscaling_limit_min_cu": size.min_cu, "autoscaling_limit_max_cu": size.max_cu}
        if size.suspends:
            defaults["suspend_timeout_duration"] = duration(size.suspend_timeout)
        else:
            defaults["no_suspension"] = True
        found: Json = {
            "display_name": self.display_name,
            "history_retention_duration": duration(self.history_seconds),
            "default_endpoint_settings": defaults,
        }
        if self.budget_policy_id:
            found["budget_policy_id"] = self.budget_policy_id
        if self.custom_tags:
            found["custom_tags"] = list(self.custom_tags)
        return found

    @classmethod
    def restored(cls, saved: Json) -> Settings:
        """Return the settings that ``dataclasses.asdict`` turned into JSON."""
        size, tags = Size(**saved["endpoint_size"]), tuple(saved["custom_tags"])
        return cls(**{**saved, "endpoint_size": size, "custom_tags": tags})


def flat(spec: Json) -> Json:
    """Return a spec's fields as path → value; raise ``ApiError`` for an unknown field."""
    given = read_object("project.spec", spec, {*_PLAIN, "pg_version", "default_endpoint_settings"})
    defaults = read_object(
        "project.spec.default_endpoint_settings",
        given.get("default_endpoint_settings"),
        {*_LIMITS, *SUSPENSION, "pg_settings"},
    )
    found = {f"spec.{name}": value for name, value in given.items() if name in _PLAIN}
    return found | {f"spec.default_endpoint_settings.{name}": value for name, value in defaults.items()}


def changed(settings: Settings, fields: Json) -> Settings:
    """Return the settings with the fields of a request; raise ``ApiError`` if one is not allowed."""
    changes: Json = {"endpoint_size": _size(settings.endpoint_size, fields)}
    for path, (name, read) in _READERS.items():
        if fields.get(path) is not None:
            changes[name] = read(path, fields[path])
    return replace(settings, **changes)


def initial_size(size: Size, spec: Json) -> Size:
    """Return the size of the endpoint that a new project has, from its ``initial_endpoint_spec``."""
    given = read_object("project.initial_endpoint_spec", spec, {*_LIMITS, *SUSPENSION, "group"})
    group = read_object(
        "project.initial_endpoint_spec.group", given.get("group"), {"min", "max", "enable_readable_secondaries"}
    )
    fields = {f"spec.{name}": value for name, value in given.items() if name != "group"}
    return resized(size, fields | {f"spec.group.{name}": value for name, value in group.items()})


def _size(size: Size, fields: Json) -> Size:
    prefix = "spec.default_endpoint_settings."
    given = {path.removeprefix(prefix): value for path, value in fields.items() if path.startswith(prefix)}
    if given.pop("pg_settings", None):
        raise not_imitated("the field 'project.spec.default_endpoint_settings.pg_settings'")
    return resized(size, {f"spec.{name}": value for name, value in given.items()})


def _history(field: str, value: Any) -> float:
    seconds = read_duration(field, value)
    if not SHORTEST_HISTORY <= seconds <= LONGEST_HISTORY:
        raise invalid(f"Field '{field}' must be between {SHORTEST_HISTORY:g}s and {LONGEST_HISTORY:g}s, not {value!r}")
    return seconds


def _display_name(field: str, value: Any) -> str:
    if len(read_text(field, value)) > 256:
        raise invalid(f"Field '{field}' must have between 1 and 256 characters")
    return str(value)


def _tags(field: str, value: Any) -> tuple[Json, ...]:
    if not isinstance(value, list):
        raise invalid(f"Field '{field}' must be a list, not {value!r}")
    return tuple(read_object(field, each, {"key", "value"}) for each in value)


_READERS = {
    "spec.display_name": ("display_name", _display_name),
    "spec.history_retention_duration": ("history_seconds", _history),
    "spec.enable_pg_native_login": ("native_login", read_flag),
    "spec.budget_policy_id": ("budget_policy_id", read_text),
    "spec.custom_tags": ("custom_tags", _tags),
}
