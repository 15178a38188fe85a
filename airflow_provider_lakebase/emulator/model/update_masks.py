"""Update masks: which fields of a resource an update changes. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from airflow_provider_lakebase.emulator.model.errors import Json, invalid

#: Paths that a mask may name → the fields each stands for. A choice of fields stands under the name of its group.
Paths = Mapping[str, tuple[str, ...]]


def masked_fields(
    body: Json,
    mask: str | None,
    paths: Paths,
    *,
    fixed: Mapping[str, str] | None = None,
    lists: Collection[str] = (),
) -> Json:
    """Return the fields of the body that the mask selects, as path → value.

    Raise ``ApiError`` if the mask names an unknown path, one of a fixed field, or a field that the body lacks.

    :param paths: the paths that the mask may name; the fields of those that others contain are joined
    :param fixed: path of a field that cannot change → why
    :param lists: paths of lists, which a body lacks when they are empty
    """
    if not mask:
        raise invalid("Field 'update_mask' is required, expected non-default value (not \"\")!")
    named = [path.strip() for path in mask.split(",")]
    for path in named:
        if path not in paths:
            raise invalid(f"Unknown field path in update_mask: '{path}'{_reason(path, paths, fixed or {})}")
    found: Json = {}
    for path in named:
        fields = {field: _value(body, field) for field in paths[path]}
        given = {field: value for field, value in fields.items() if value is not None}
        if path in lists and not given:
            given = {path: []}
        if not given and "." in path:
            raise invalid(f"Field '{path}' is in update_mask but not provided in request")
        found |= given
    return found


def _reason(path: str, paths: Paths, fixed: Mapping[str, str]) -> str:
    if path in fixed:
        return f": {fixed[path]}"
    groups = [group for group, fields in paths.items() if path in fields and group.count(".") == path.count(".")]
    if groups:
        return f": it is one of several, which the mask names together as '{groups[0]}'"
    known = ", ".join(f"'{each}'" for each in paths)
    return f"; known are {known}"


def _value(body: Json, path: str) -> Any:
    value: Any = body
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
