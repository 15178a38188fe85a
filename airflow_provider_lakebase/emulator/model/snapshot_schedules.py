"""The snapshot schedules of branches. They are kept, but take no snapshots. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakebase.emulator.model.errors import Json, invalid
from airflow_provider_lakebase.emulator.model.fields import read_choice, read_duration, read_object
from airflow_provider_lakebase.emulator.model.operations import Operation
from airflow_provider_lakebase.emulator.model.update_masks import masked_fields

if TYPE_CHECKING:
    from airflow_provider_lakebase.emulator.model.branches import Branch
    from airflow_provider_lakebase.emulator.model.workspace import Workspace

SHORTEST_RETENTION = 3600.0
DAYS = ("MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY")

_CADENCES = ("daily_schedule", "weekly_schedule", "monthly_schedule")


class SnapshotSchedules:
    """The schedules of all branches. A branch without one has an empty one."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def json(self, name: str) -> Json:
        """Return a schedule as the API does."""
        branch = self._branch(name)
        return {"name": name, "schedule": branch.snapshot_schedule} if branch.snapshot_schedule else {"name": name}

    def update(self, name: str, body: Json, mask: str | None) -> Operation:
        """Replace all cadences of a branch."""
        branch = self._branch(name)
        read_object("snapshot_schedule", body, {"name", "schedule"})
        schedule = masked_fields(body, mask, {"schedule": ("schedule",)}).get("schedule", [])
        if not isinstance(schedule, list):
            raise invalid(f"Field 'schedule' must be a list, not {schedule!r}")
        for cadence in schedule:
            _check(cadence)

        def work() -> Json:
            branch.snapshot_schedule = schedule
            return self.json(name)

        return self._workspace.operations.submit(name, "update_snapshot_schedule", work)

    def _branch(self, name: str) -> Branch:
        return self._workspace.branches.require_ready(name.removesuffix("/snapshot-schedule"))


def _check(cadence: Any) -> None:
    given = read_object("schedule", cadence, {"retention", *_CADENCES})
    kind = read_choice("schedule", given, _CADENCES)
    if kind is None:
        raise invalid(f"A cadence needs one of {', '.join(_CADENCES)}")
    if read_duration("schedule.retention", given.get("retention")) < SHORTEST_RETENTION:
        raise invalid("Field 'schedule.retention' must be at least 1 hour")
    when = read_object(f"schedule.{kind}", given[kind], {"hour", "day", "day_of_week"})
    _check_number(f"schedule.{kind}.hour", when.get("hour", 0), 0, 23)
    if kind == "monthly_schedule":
        _check_number(f"schedule.{kind}.day", when.get("day"), 1, 31)
    if kind == "weekly_schedule" and when.get("day_of_week") not in DAYS:
        raise invalid(f"Field 'schedule.{kind}.day_of_week' must be one of {', '.join(DAYS)}")


def _check_number(field: str, value: Any, smallest: int, largest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= largest:
        raise invalid(f"Field '{field}' must be between {smallest} and {largest}, not {value!r}")
