"""Open URLs of object storage with fsspec's libraries."""

from __future__ import annotations

from typing import Any

from upath import UPath

from airflow_provider_lakebase.core.storage import shown
from airflow_provider_lakebase.exceptions import LakebaseSettingsError


def locate(place: Any) -> Any:
    """Return a URL, or a list of them, as a path; anything else unchanged.

    :param place: the source of a load, or the destination of an export
    :raises LakebaseSettingsError: for a URL whose library is not installed
    """
    if isinstance(place, list | tuple) and place and all(isinstance(each, str) for each in place):
        return [locate(each) for each in place]
    if not isinstance(place, str) or "://" not in place:
        return place
    try:
        path = UPath(place)
        _ = path.fs
    except (ValueError, ImportError):
        hint = "Install its fsspec library: s3fs for s3://, gcsfs for gs://, adlfs for abfs://; or correct the URL."
        raise LakebaseSettingsError(f"No installed library opens {shown(place)}", hint=hint) from None
    return path
