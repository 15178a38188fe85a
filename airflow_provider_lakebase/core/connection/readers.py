"""Read the values of connection fields: each reader returns the value, or raises an error that names the field."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_lakebase.core.connection.resource_names import ENDPOINT_FORM, ResourceName
from airflow_provider_lakebase.exceptions import ErrorContext, LakebaseSettingsError

DAY_SECONDS = 86_400.0
FORM_FIELDS = ("Host", "Login", "Password", "Schema", "Port")
"""The fields that every connection has; all others are its extras."""
SSLMODES = ("require", "verify-ca", "verify-full")

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

Reader = Callable[[str, str, Any], Any]
"""Connection id, field name, value → the value, checked."""


def wrong_field(conn_id: str, name: str, problem: str, hint: str) -> LakebaseSettingsError:
    """Return the error for a field with a wrong value.

    :param conn_id: Airflow connection id
    :param name: the field
    :param problem: what is wrong, following the field's name
    :param hint: what to do
    """
    shown = f"{{{name.lower()}}}" if name in FORM_FIELDS else name
    return LakebaseSettingsError(f"Field '{shown}' {problem}", context=ErrorContext(conn_id), hint=hint)


def required(conn_id: str, name: str, value: Any, hint: str) -> str:
    """Return a text that must not be empty.

    :raises LakebaseSettingsError: with the hint, when it is
    """
    if not value or not str(value).strip():
        raise wrong_field(conn_id, name, "is missing", hint)
    return str(value)


def read_text(conn_id: str, name: str, value: Any) -> str:
    """Return a text; a number is converted, since a connection given as JSON may hold one."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        hint = "Give a text or a number, or remove it if it is neither a field of the connection nor a libpq keyword."
        raise wrong_field(conn_id, name, f"holds a {type(value).__name__}", hint)
    return str(value)


def read_seconds(conn_id: str, name: str, value: Any) -> float:
    """Return a number of seconds, more than 0 and at most a day."""
    text = read_text(conn_id, name, value)
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 < number <= DAY_SECONDS:
        raise wrong_field(conn_id, name, f"is {value!r}", "Give seconds, more than 0 and at most a day.")
    return number


def whole_number(least: int, most: int) -> Callable[[str, str, Any], int]:
    """Return a reader of whole numbers in a range, both ends included."""

    def read(conn_id: str, name: str, value: Any) -> int:
        text = read_text(conn_id, name, value).strip()
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
        if not least <= number <= most:
            raise wrong_field(conn_id, name, f"is {value!r}", f"Give a whole number from {least} to {most}.")
        return number

    return read


def one_of(*choices: str) -> Callable[[str, str, Any], str]:
    """Return a reader that accepts one of several texts."""

    def read(conn_id: str, name: str, value: Any) -> str:
        if value not in choices:
            raise wrong_field(conn_id, name, f"is {value!r}", f"Choose one of {', '.join(choices)}.")
        return str(value)

    return read


def read_boolean(conn_id: str, name: str, value: Any) -> bool:
    """Return a boolean; the texts ``true`` and ``false`` are accepted too."""
    boolean = {"true": True, "false": False}.get(str(value).lower())
    if boolean is None:
        raise wrong_field(conn_id, name, f"is {value!r}", "Give true or false.")
    return boolean


def read_endpoint_name(conn_id: str, name: str, value: Any) -> ResourceName:
    """Return the resource name of an endpoint, or of a branch, which means its read-write endpoint."""
    try:
        resource = ResourceName.parse(value if isinstance(value, str) else "")
        return resource if resource.kind == "endpoint" else resource.up_to("branch")
    except ValueError:
        raise wrong_field(
            conn_id,
            name,
            # A value with an @ may be a URI with a password in it.
            "is malformed" if "@" in str(value) else f"is malformed: {value!r}",
            f"Write {ENDPOINT_FORM}, each name in lower-case letters, digits and hyphens.",
        ) from None


def read_project_id(conn_id: str, name: str, value: Any) -> str:
    """Return the ID of a project, which may be given by its resource name."""
    text = value if isinstance(value, str) else ""
    try:
        return ResourceName(text.removeprefix("projects/")).project
    except ValueError:
        hint = "Write the ID of a project, in lower-case letters, digits and hyphens."
        raise wrong_field(conn_id, name, f"is malformed: {value!r}", hint) from None


def read_host_name(conn_id: str, name: str, value: Any) -> str:
    """Return one host name, without a port."""
    host = read_text(conn_id, name, value)
    if "/" in host or ":" in host or "," in host:
        hint = "Give the endpoint's host alone; the port is the field Port."
        raise wrong_field(conn_id, name, "is not a single host name", hint)
    return host


def read_sslmode(conn_id: str, name: str, value: Any) -> str:
    """Return an ``sslmode`` that encrypts the session."""
    if value not in SSLMODES:
        raise wrong_field(
            conn_id,
            name,
            f"is {value!r}, which Lakebase refuses or which could send the credential unencrypted",
            f"Choose one of {', '.join(SSLMODES)}.",
        )
    return str(value)


def read_workspace_url(conn_id: str, name: str, value: str) -> str:
    """Return scheme and host of a workspace; ``http`` is accepted on loopback only."""
    text = value.strip()
    try:
        url = urlsplit(text if "://" in text else f"https://{text}")
        _ = url.port
    except ValueError:
        url = urlsplit("")
    if url.path.strip("/") or url.query or url.fragment or url.username or url.password:
        raise wrong_field(
            conn_id,
            name,
            "holds more than the workspace's address",
            "Give scheme and host only, as https://my-workspace.cloud.databricks.com.",
        )
    if url.scheme == "http" and url.hostname in _LOOPBACK:
        return f"http://{url.netloc}"
    if url.scheme != "https" or not url.hostname or re.search(r"\s", url.netloc):
        raise wrong_field(
            conn_id,
            name,
            "is not an https address",
            "Enter the workspace URL, as https://my-workspace.cloud.databricks.com.",
        )
    return f"https://{url.netloc}"
