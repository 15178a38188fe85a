"""How the log tells the report of a bootstrap."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_provider_lakebase.hooks._role_log import tell_report


def report(**remaining: Any) -> dict[str, Any]:
    """Return the report of a bootstrap that changed something, with one difference that remains."""
    changes: dict[str, Any] = dict.fromkeys(("created", "revoked", "owned", "granted", "not_permitted", "synced"), ())
    row = {"object": "table s.t", "privileges": ["SELECT"], "from": "ada", "why": None, **remaining}
    facts = {"identity": "etl", "dry_run": False, "changed": True, "extension": "found", "role": "found"}
    return {**facts, **changes, "remaining": [row]}


def test_a_membership_that_remains_reads_as_one():
    remaining = report(object="role 'team'", privileges=["MEMBER"], by="direct", why="it is kept")
    told = [sentence for _, sentence in tell_report(remaining, prune=True)]
    assert told == ["'etl' is also a member of role 'team', granted by 'ada'; it is kept"]


@pytest.mark.parametrize(
    ("by", "prune", "level"),
    [
        ("direct", True, logging.WARNING),
        ("membership", True, logging.WARNING),
        ("ownership", True, logging.INFO),
        ("PUBLIC", True, logging.INFO),
        ("direct", False, logging.INFO),
    ],
)
def test_only_what_prune_was_expected_to_revoke_is_a_warning(by: str, prune: bool, level: int):
    assert [found for found, _ in tell_report(report(by=by), prune=prune)] == [level]
