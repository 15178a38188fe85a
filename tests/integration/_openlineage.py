"""OpenLineage events that Airflow wrote into a file, checked against the specification's JSON schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

SPECIFICATION = Path(__file__).parent / "openlineage"
SCHEMAS = [json.loads(path.read_text()) for path in sorted(SPECIFICATION.rglob("*.json"))]
REGISTRY: Registry[Any] = Registry().with_resources(
    [(schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS]
)
AIRFLOWS_OWN = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet"
"""What Airflow's provider gives as the schema of the facets that are its own."""


def transport(file: Path) -> dict[str, str]:
    """Return the environment in which Airflow appends its events to a file."""
    value = {"type": "file", "log_file_path": str(file), "append": True}
    return {"AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(value)}


def read_events(file: Path) -> list[dict[str, Any]]:
    """Return the events in the file, each of which is valid."""
    events = [json.loads(line) for line in file.read_text().splitlines()]
    for event in events:
        validate(event)
    return events


def validate(event: dict[str, Any]) -> None:
    """Check an event, and each of its facets, against the schema that it names itself."""
    check(event, event["schemaURL"])
    for facet in facets_of(event):
        check(facet, facet["_schemaURL"])


def check(value: dict[str, Any], url: str) -> None:
    validator = Draft202012Validator(
        {"$ref": url}, registry=REGISTRY, format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    validator.validate(value)


def facets_of(value: Any) -> Iterator[dict[str, Any]]:
    """Give every facet below a value."""
    if isinstance(value, dict):
        if "_schemaURL" in value:
            yield value
        for each in value.values():
            yield from facets_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from facets_of(each)


def names(event: dict[str, Any], kind: str) -> list[str]:
    """Return the names of an event's ``inputs`` or ``outputs``, with the namespace where they are files."""
    return [
        each["name"]
        if each["namespace"].startswith(("lakebase:", "postgres:"))
        else f"{each['namespace']}:{each['name']}"
        for each in event[kind]
    ]


def lineage(events: list[dict[str, Any]], job: str, event_type: str = "COMPLETE") -> list[tuple[list[str], list[str]]]:
    """Return inputs and outputs of each event of a job."""
    found = [event for event in events if event["job"]["name"] == job and event["eventType"] == event_type]
    return [(names(event, "inputs"), names(event, "outputs")) for event in found]
