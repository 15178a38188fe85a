"""Convert SQL results to values that XComs of every supported Airflow carry unchanged."""

from __future__ import annotations

import datetime
import enum
import ipaddress
import json
import math
import uuid
from decimal import Decimal
from typing import Any

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_lakebase.exceptions import LakebaseSettingsError

_NOT_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}
_RESERVED_KEYS = {"__classname__", "__id__", "__type", "__var"}
_NOT_FOR_XCOM = (
    # Airflow 2's XCom has no UUID; goes with Airflow 2.
    *(() if AIRFLOW_V_3_0_PLUS else (uuid.UUID,)),
    datetime.time,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
)


def to_xcom(value: Any) -> Any:
    """Return a result in which text replaces the values that an XCom cannot carry unchanged.

    Containers and other values stay as they are. NaN and infinity are written as Postgres writes them.

    :param value: what a handler returned: rows, a row or a value
    :raises LakebaseSettingsError: for a value of a type that has no text form
    """
    kind = type(value)
    if value is None or kind in (str, int, bool):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"\\x{bytes(value).hex()}"
    if isinstance(value, _NOT_FOR_XCOM) or kind.__module__.startswith("psycopg."):
        return str(value)
    if kind is dict:
        if not all(type(key) is str for key in value) or _RESERVED_KEYS & value.keys():
            return json.dumps(value, default=str)
        return {key: to_xcom(item) for key, item in value.items()}
    if kind in (list, tuple):
        return kind(to_xcom(item) for item in value)
    return _leaf_to_xcom(value)


def _leaf_to_xcom(value: Any) -> Any:
    if type(value) is float:
        return value if math.isfinite(value) else _NOT_FINITE.get(value, "NaN")
    if isinstance(value, Decimal) and not value.is_finite():
        return _NOT_FINITE.get(float(value), "NaN") if not value.is_nan() else "NaN"
    if _arrives(value):
        return value
    if isinstance(value, Decimal | datetime.date | datetime.timedelta | uuid.UUID | enum.Enum):
        return str(value)
    raise LakebaseSettingsError(
        f"The result contains a {type(value).__name__}, which an XCom cannot carry; the statements were not committed",
        hint="Return other values from the handler, or set do_xcom_push=False.",
    )


def _arrives(value: Any) -> bool:
    """Return whether a value survives Airflow's XCom unchanged."""
    try:
        from airflow.sdk.serde import deserialize, serialize
    except ModuleNotFoundError:  # goes with Airflow 3.1
        from airflow.serialization.serde import (  # type: ignore[import-not-found,no-redef]
            deserialize,
            serialize,
        )
    try:
        return bool(deserialize(json.loads(json.dumps(serialize(value), allow_nan=False))) == value)
    except Exception:
        return False
