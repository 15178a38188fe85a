"""Check the password of a login, in the same order as the proxy in front of Lakebase.

A database credential is accepted for the role of its own identity, on direct hosts only. A PostgreSQL password is
accepted for a role that has one, on every host, if native login is on.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac

from airflow_provider_lakebase.emulator.model.identities import Issued
from airflow_provider_lakebase.emulator.model.workspace import Workspace
from airflow_provider_lakebase.emulator.postgres_port.cluster import Cluster
from airflow_provider_lakebase.emulator.postgres_port.login_errors import (
    NO_ROLE,
    POOLED,
    UNAUTHORIZED,
    UNKNOWN_CREDENTIAL,
    WRONG_PASSWORD,
    LoginRefused,
)
from airflow_provider_lakebase.emulator.postgres_port.roles import password_secret, role_label


async def check_password(
    state: Workspace, cluster: Cluster, user: str, password: str, *, native: bool, pooled: bool
) -> Issued | None:
    """Return the credential, or None for a correct PostgreSQL password; raise ``LoginRefused`` for anything else.

    :param native: whether native login is on
    :param pooled: whether the client came to the pooled host
    """
    credential = state.identities.credential(password)
    if credential is None and native:
        if await _is_native(cluster, user, password):
            return None
    if pooled:
        raise LoginRefused(POOLED)
    if credential is None:
        raise LoginRefused(UNKNOWN_CREDENTIAL)
    if credential.expires_at <= state.clock() or credential.principal.role != user:
        raise LoginRefused(UNAUTHORIZED)
    return credential


async def check_role(cluster: Cluster, user: str, credential: Issued) -> None:
    """Raise ``LoginRefused`` unless the role exists and belongs to the credential's identity."""
    exists, label = await asyncio.to_thread(role_label, cluster, user)
    if not exists:
        raise LoginRefused(NO_ROLE.format(user))
    if label is None:
        raise LoginRefused(WRONG_PASSWORD.format(user))
    if label != credential.principal.label:
        raise LoginRefused(UNAUTHORIZED)


async def _is_native(cluster: Cluster, user: str, password: str) -> bool:
    """Return whether the role has this password; raise ``LoginRefused`` if it has a different one."""
    secret = await asyncio.to_thread(password_secret, cluster, user)
    if secret is None:
        return False
    if not await asyncio.to_thread(is_password_of, secret, password):
        raise LoginRefused(WRONG_PASSWORD.format(user))
    return True


def is_password_of(secret: str, password: str) -> bool:
    """Return whether a SCRAM secret, in PostgreSQL's form, was made from this password.

    Its form is ``SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>``; see RFC 5803.
    """
    method, _, rest = secret.partition("$")
    if method != "SCRAM-SHA-256":
        return False
    iterations, salt = rest.split("$")[0].split(":")
    stored_key = base64.b64decode(rest.split("$")[1].split(":")[0])
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), stored_key)
