"""How long a branch or a snapshot lives, as a request says it. No I/O."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.model.errors import Json, invalid
from airflow_provider_lakebase.emulator.model.fields import check_time, read_choice, read_duration, read_flag, read_time

CHOICE = ("ttl", "expire_time", "no_expiry")
LONGEST_LIFE = 30 * 24 * 3600.0


def read_expiry(field: str, spec: Json, now: float, *, longest: float | None = LONGEST_LIFE) -> float | None:
    """Return when something expires, or None for never.

    Raise ``ApiError`` unless the spec sets exactly one of the three fields, to a moment between now and ``longest``
    seconds later.
    """
    chosen = read_choice(field, spec, CHOICE)
    if chosen is None:
        names = ", ".join(f"'{field}.{name}'" for name in CHOICE)
        raise invalid(f"One of {names} is required")
    path = f"{field}.{chosen}"
    if chosen == "no_expiry":
        if not read_flag(path, spec[chosen]):
            raise invalid(f"Field '{path}' must be true if it is set; set 'ttl' or 'expire_time' instead")
        return None
    given = now + read_duration(path, spec[chosen]) if chosen == "ttl" else read_time(path, spec[chosen])
    expires_at = check_time(path, given)
    if expires_at <= now:
        raise invalid(f"Field '{path}' must be in the future")
    if longest is not None and expires_at > now + longest:
        raise invalid(f"Field '{path}' must be at most {longest / 86400:g} days from now")
    return expires_at
