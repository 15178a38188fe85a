"""Mask secrets in Airflow's logs, and remove the masks of credentials that are no longer in use.

Airflow never removes a mask and recompiles all of them whenever one is added, so a process that opens sessions forever,
such as a triggerer, would slow down with each one. Only the newest 50 credentials of a process stay masked. Removing a
mask relies on the attribute ``patterns`` of Airflow's masker, which is the same in Airflow 2.11 to 3.3. Without that
attribute, masks are kept.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

if AIRFLOW_V_3_0_PLUS:
    from airflow.sdk.log import mask_secret
else:  # goes with Airflow 2
    from airflow.utils.log.secrets_masker import mask_secret  # type: ignore[import-not-found,no-redef]

MAX_MASKED = 50
"""Credentials of one process that are masked at the same time."""


class _Credential(NamedTuple):
    """A masked credential, and the patterns that Airflow's masker made of it."""

    key: int
    patterns: frozenset[str]


class _Masks:
    """The secrets that this process has masked."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew: a forked process may have a masker of its own, and must not inherit a lock that is held."""
        self._lock = threading.Lock()
        self._masked: set[int] = set()
        self._credentials: deque[_Credential] = deque()

    def __contains__(self, secret: str) -> bool:
        return hash(secret) in self._masked

    def add(self, secret: str) -> None:
        if secret not in self:
            self._masked.add(hash(secret))
            for form in _forms(secret):
                mask_secret(form)

    def add_credential(self, secret: str) -> None:
        with self._lock:
            if secret in self:
                return
            self._masked.add(hash(secret))
            masker = _masker()
            before = set(masker.patterns) if masker else set()
            oldest = self._credentials.popleft() if len(self._credentials) == MAX_MASKED else None
            if oldest and masker:
                self._masked.discard(oldest.key)
                masker.patterns.difference_update(oldest.patterns)
            for form in _forms(secret):
                # mask_secret also informs the process's supervisor, which never removes a mask.
                (masker.add_mask if oldest and masker else mask_secret)(form)
            added = set(masker.patterns) - before if masker else set()
            self._credentials.append(_Credential(hash(secret), frozenset(added)))


PROCESS_MASKS = _Masks()
"""The masks of this process, as Airflow's masker belongs to the process. They end with it."""
os.register_at_fork(after_in_child=PROCESS_MASKS.forget)


def mask(secret: str) -> None:
    """Mask a secret for the rest of the process, both plain and URL-encoded.

    :param secret: a secret of a connection, or a credential that is returned to the user
    """
    PROCESS_MASKS.add(secret)


def mask_credential(secret: str) -> None:
    """Mask the credential of a session; once there are too many, it replaces the oldest.

    :param secret: the credential
    """
    PROCESS_MASKS.add_credential(secret)


async def mask_async(secrets: Iterable[str]) -> None:
    """Mask secrets as :func:`mask` does, without blocking the event loop.

    :param secrets: secrets of a connection
    """
    await _in_thread(mask, secrets)


async def mask_credentials_async(secrets: Iterable[str]) -> None:
    """Mask credentials as :func:`mask_credential` does, without blocking the event loop.

    :param secrets: the credentials
    """
    await _in_thread(mask_credential, secrets)


async def _in_thread(work: Any, secrets: Iterable[str]) -> None:
    from asgiref.sync import sync_to_async

    for secret in secrets:
        if secret not in PROCESS_MASKS:
            await sync_to_async(work)(secret)


def _forms(secret: str) -> set[str]:
    return {secret, quote(secret, safe=""), quote_plus(secret)}


def _masker() -> Any:
    """Return this process's masker; None if it does not have the known attributes."""
    modules = (sys.modules.get(name) for name in (mask_secret.__module__, "airflow.sdk._shared.secrets_masker"))
    find = next((found for module in modules if (found := getattr(module, "_secrets_masker", None))), None)
    masker = find() if find else None
    return masker if all(hasattr(masker, name) for name in ("patterns", "add_mask")) else None
