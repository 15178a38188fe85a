"""Tell the report of a bootstrap as a log does: a sentence for each change, and for each difference that remains."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

_SENTENCES = {
    "created": ("Created {}", "Would create {}"),
    "revoked": ("Revoked from '{identity}': {}", "Would revoke from '{identity}': {}"),
    "owned": ("'{identity}' now owns {}", "'{identity}' would own {}"),
    "granted": ("Granted {} to '{identity}'", "Would grant {} to '{identity}'"),
}
_CAUSES = {
    "direct": "granted by '{from}'",
    "membership": "as a member of '{from}'",
    "PUBLIC": "as every role has",
    "ownership": "as the owner",
}


def tell_report(report: Mapping[str, Any], *, prune: bool) -> Iterator[tuple[int, str]]:
    """Yield a level and a sentence for each line of the log.

    :param report: of LakebaseHook.bootstrap_role
    :param prune: whether what is not declared was to be revoked
    """
    identity, form = report["identity"], 1 if report["dry_run"] else 0
    if not report["changed"]:
        yield logging.INFO, f"Role '{identity}' already has all that is declared; nothing was changed"
    if report["extension"] == "created":
        yield logging.INFO, _SENTENCES["created"][form].format("extension databricks_auth")
    if report["role"] == "created":
        yield logging.INFO, _SENTENCES["created"][form].format(f"role '{identity}'")
    for name, forms in _SENTENCES.items():
        for what in report[name]:
            yield logging.INFO, forms[form].format(what, identity=identity)
    if report["synced"]:
        names = ", ".join(report["synced"])
        yield (
            logging.INFO,
            f"'{identity}' gets no privilege to write to synced tables, since only their pipelines may: {names}",
        )
    for row in report["remaining"]:
        yield _tell_remaining(row, identity, prune=prune)
    for what in report["not_permitted"]:
        yield logging.WARNING, f"The connection's role may not {what}"


def _tell_remaining(row: Any, identity: str, *, prune: bool) -> tuple[int, str]:
    if not isinstance(row, Mapping):
        return logging.INFO, f"Not declared: {row}"
    cause = _CAUSES[row["by"]].format(**row)
    privileges = ", ".join(row["privileges"])
    text = f"'{identity}' also has {privileges} on {row['object']}, {cause}"
    if row["privileges"] == ["MEMBER"]:
        text = f"'{identity}' is also a member of {row['object']}, {cause}"
    if row["why"] and row["by"] == "direct":
        text += f"; {row['why']}"
    # What every role has, and what an owner has of its own, nobody expects to be revoked.
    is_left_over = prune and row["by"] in ("direct", "membership")
    return logging.WARNING if is_left_over else logging.INFO, text
