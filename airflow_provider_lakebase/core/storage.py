"""Name files on object storage without secrets, and translate the errors of its libraries."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

from airflow_provider_lakebase.exceptions import (
    LakebaseError,
    LakebaseSettingsError,
    LakebaseStorageAccessError,
    LakebaseStorageError,
)

_USER = re.compile(r"^([a-z0-9+.-]+://)(?:[^/@]*:[^/@]*@|[^/@:]*:[^/@]*[^0-9/@][^@]*@)", re.IGNORECASE)
_SIGNED = re.compile(
    r"\?(?:[^?]*&)?(?:x-(?:amz|goog)-[a-z-]+|sig|sas|signature|token|key|awsaccesskeyid|googleaccessid)=.*$",
    re.IGNORECASE | re.DOTALL,
)
_LIBRARIES = (
    *("adlfs", "aiobotocore", "aiohttp", "azure", "boto3", "botocore", "fsspec", "gcsfs", "google", "requests", "s3fs"),
    *("upath", "urllib3"),
)
_ACCESS = ("Credential", "Forbidden", "Auth", "Token", "Permission", "Unauthorized", "ProfileNotFound")


def shown(path: Any) -> str:
    """Return a path or URL as messages show it: without a password or a signature in its query.

    :param path: path or URL
    """
    text = str(path)
    if "://" not in text:
        return text
    text = _SIGNED.sub("", _USER.sub(r"\1***@", text))
    return text.partition("?")[0] if text.lower().startswith(("http://", "https://")) else text


def folder_error(label: str) -> LakebaseSettingsError:
    """Return the error for a folder, or prefix, that was given as a file.

    :param label: the path as messages show it
    """
    return LakebaseSettingsError(f"{label} is a folder, not a file", hint="Name a file in it.")


def storage_error(error: BaseException, label: str, *, writes: bool = False) -> Exception | None:
    """Return an error without secrets in place of one that a storage library raised; None if it is not from storage.

    :param error: as it was raised
    :param label: the path as messages show it
    :param writes: whether the file was being written
    """
    if isinstance(error, LakebaseError) or not isinstance(error, Exception):
        return None
    if isinstance(error, IsADirectoryError):
        return folder_error(label)
    if isinstance(error, FileNotFoundError):
        return _missing(label, writes)
    library = type(error).__module__.partition(".")[0] in _LIBRARIES
    numbered = isinstance(error, OSError) and (error.errno is not None or type(error) is not OSError)
    if "://" not in label or not (library or numbered):
        return None
    done = "written" if writes else "read"
    name = type(error).__name__
    if isinstance(error, PermissionError) or any(word in name for word in _ACCESS):
        hint = "Check the credentials of the storage's connection, and their permissions."
        return LakebaseStorageAccessError(f"{label} cannot be {done}: the storage refused access", hint=hint)
    if name == "FileExpired":
        what = f"{label} cannot be read: it was overwritten in the meantime"
        return LakebaseStorageError(what, hint="Load it again.")
    what = f"{label} cannot be {done}: the storage failed or could not be reached ({name})"
    return LakebaseStorageError(what, hint="Check the address of the storage in its connection, or try again later.")


def _missing(label: str, writes: bool) -> Exception:
    if writes:
        if "://" in label:
            return FileNotFoundError(errno.ENOENT, "There is no such bucket or folder to write to", label)
        return FileNotFoundError(errno.ENOENT, "There is no such folder to write to", str(Path(label).parent))
    what = "There is no such object or bucket" if "://" in label else "There is no such file"
    return FileNotFoundError(errno.ENOENT, what, label)
