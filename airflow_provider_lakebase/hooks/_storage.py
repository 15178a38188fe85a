"""Resolve paths and URLs to Airflow's object storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_lakebase.core.storage import shown
from airflow_provider_lakebase.exceptions import LakebaseSettingsError


def locate(place: Any, conn_id: str | None = None) -> Any:
    """Return a URL, or a list of them, as ``ObjectStoragePath``; anything else unchanged.

    :param place: the source of a load, or the destination of an export
    :param conn_id: Airflow connection of the object storage, instead of one before an ``@`` in the URL
    :raises LakebaseSettingsError: for a URL that no installed provider supports, or that names another connection
    """
    if isinstance(place, list) or (isinstance(place, tuple) and place and all(map(_is_url, place))):
        return [locate(each, conn_id) for each in place]
    if conn_id:
        return _on_connection(place, conn_id)
    return _path(place) if _is_url(place) else place


def locate_all(places: Any, conn_id: str | None = None) -> Any:
    """Return a path or URL, or any sequence of them, as :func:`locate` does.

    :param places: path or URL, or a sequence of them
    :param conn_id: Airflow connection of the object storage
    :raises LakebaseSettingsError: for an empty sequence
    """
    if isinstance(places, str) or not isinstance(places, Sequence):
        return locate(places, conn_id)
    if not places:
        raise LakebaseSettingsError("source is an empty list", hint="Name a file, or skip the task.")
    return [locate(path, conn_id) for path in places]


def list_urls(source: Any, conn_id: str | None = None, *, allow_empty: bool = False) -> list[str]:
    """Return the paths or URLs of the files of a source. URLs name the connection of their storage.

    :param source: path or URL of a folder or file, a pattern, or a list of them
    :param conn_id: Airflow connection of the object storage
    :param allow_empty: whether there may be no file
    :raises FileNotFoundError: if there is none
    :raises LakebaseError: for an invalid pattern, or if the storage fails
    """
    from airflow_provider_lakebase.core.bulk.listing import list_files

    places = locate_all(source, conn_id)
    return [str(file) for file in list_files(places if isinstance(places, list) else [places], allow_empty=allow_empty)]


def _is_url(place: Any) -> bool:
    return isinstance(place, str) and "://" in place


def _on_connection(place: Any, conn_id: str) -> Any:
    text = str(place)
    if "://" not in text:
        hint = "Leave it out, or give a URL such as s3://bucket/key."
        raise LakebaseSettingsError(f"A connection to object storage is given, but {text} is a local file", hint=hint)
    path = _path(text, conn_id)
    own = getattr(place, "conn_id", None)
    if own is None and text.startswith("s3"):
        own = text.partition("://")[2].partition("/")[0].rpartition("@")[0] or None
    if own is not None and own != conn_id:
        hint = "Name only one of them."
        raise LakebaseSettingsError(f"{shown(text)} names another connection than '{conn_id}'", hint=hint)
    return path


def _path(url: str, conn_id: str | None = None) -> Any:
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    scheme = url.partition("://")[0]
    hint = (
        "Install the Airflow provider of the storage, such as apache-airflow-providers-amazon[s3fs] for s3://, "
        "google's for gs://, microsoft-azure's for abfs://, or correct the URL."
    )
    try:
        if scheme.lower() == "memory":  # fsspec's own, which Airflow does not support
            from upath import UPath

            return UPath(url)
        path = ObjectStoragePath(url, conn_id=conn_id) if conn_id else ObjectStoragePath(url)
        _ = path.fs
    except (ValueError, ImportError):
        what = f"No installed provider supports {scheme}://, as in {shown(url)}"
        raise LakebaseSettingsError(what, hint=hint) from None
    except Exception as error:  # of any library: the connection is missing, or of another type
        what = f"The storage of {shown(url)} cannot be opened ({type(error).__name__})"
        raise LakebaseSettingsError(what, hint="Check the Airflow connection of the storage.") from None
    return path
