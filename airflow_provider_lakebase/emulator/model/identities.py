"""The identities of the workspace, and the secrets, tokens and credentials issued to them.

No I/O. The clock is a parameter (seconds since 1970). All methods are thread-safe.
"""

from __future__ import annotations

import base64
import json
import math
import secrets
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

from airflow_provider_lakebase.emulator.model.errors import Json

WORKSPACE_TOKEN_SECONDS = 3600.0
IDENTITY_TYPES = ("SERVICE_PRINCIPAL", "USER", "GROUP")


@dataclass(frozen=True)
class Principal:
    """An identity of the workspace, with its OAuth secret."""

    client_id: str
    client_secret: str = field(repr=False)
    display_name: str
    identity_type: str
    scim_id: str
    workspace_access: bool = True
    can_use_project: bool = True
    is_admin: bool = False

    @property
    def role(self) -> str:
        """Return its Postgres role: a service principal's client ID, a user's e-mail address, a group's name."""
        return self.client_id if self.identity_type == "SERVICE_PRINCIPAL" else self.display_name

    @property
    def label(self) -> str:
        """Return the security label that ties a Postgres role to this identity."""
        return f"id={self.scim_id},type={self.identity_type.lower()}"


@dataclass(frozen=True)
class Issued:
    """The owner and expiry of a workspace token or a database credential.

    :param read_only: whether its sessions may only read
    """

    principal: Principal
    expires_at: float
    read_only: bool = False


class Identities:
    """The identities of a workspace, and everything issued to them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        #: Whether tokens are random text instead of JWTs. Log filters hide what looks like a JWT, so a search for
        #: leaked tokens proves something only if they are opaque.
        self.opaque = False
        self.secrets: list[str] = []
        self._lock = threading.Lock()
        self._principals: dict[str, Principal] = {}
        self._members: set[tuple[str, str]] = set()
        self._tokens: dict[str, Issued] = {}
        self._credentials: dict[str, Issued] = {}
        self._identity_tokens: dict[str, Principal] = {}

    def add_principal(
        self,
        display_name: str,
        *,
        identity_type: str = "SERVICE_PRINCIPAL",
        workspace_access: bool = True,
        can_use_project: bool = True,
        is_admin: bool = False,
    ) -> Principal:
        """Add an identity; raise ``ValueError`` for an unknown identity type."""
        if identity_type not in IDENTITY_TYPES:
            raise ValueError(f"identity_type must be one of {', '.join(IDENTITY_TYPES)}, not {identity_type!r}")
        principal = Principal(
            client_id=str(uuid.uuid4()),
            client_secret=f"dose{secrets.token_hex(32)}",
            display_name=display_name,
            identity_type=identity_type,
            scim_id=str(secrets.randbelow(9 * 10**15) + 10**15),
            workspace_access=workspace_access,
            can_use_project=can_use_project,
            is_admin=is_admin,
        )
        with self._lock:
            self._principals[principal.client_id] = principal
            self.secrets.append(principal.client_secret)
        return principal

    def principals(self) -> list[Principal]:
        """Return every identity of the workspace."""
        with self._lock:
            return list(self._principals.values())

    def saved(self) -> Json:
        """Return the identities and groups as JSON, with their secrets but without what was issued to them."""
        with self._lock:
            principals = [asdict(each) for each in self._principals.values()]
            return {"principals": principals, "members": sorted(map(list, self._members))}

    def restore(self, saved: Json) -> None:
        """Put saved identities and groups in the place of the present ones."""
        found = [Principal(**each) for each in saved["principals"]]
        with self._lock:
            self._principals = {each.client_id: each for each in found}
            self._members = {(group, member) for group, member in saved["members"]}
            self.secrets[:] = [each.client_secret for each in found]

    # -- groups

    def add_member(self, group: Principal, principal: Principal) -> None:
        """Make an identity a member of a group; raise ``ValueError`` if ``group`` is not a group."""
        if group.identity_type != "GROUP":
            raise ValueError(f"{group.display_name!r} is a {group.identity_type}, not a GROUP")
        with self._lock:
            self._members.add((group.client_id, principal.client_id))

    def members(self, group: Principal) -> list[Principal]:
        """Return the members of a group."""
        with self._lock:
            return [each for each in self._principals.values() if (group.client_id, each.client_id) in self._members]

    def groups_of(self, principal: Principal) -> list[Principal]:
        """Return the groups that an identity is a member of."""
        with self._lock:
            return [
                each for each in self._principals.values() if (each.client_id, principal.client_id) in self._members
            ]

    def group_of(self, principal: Principal, name: str) -> Principal | None:
        """Return the group of this name if the identity is a member of it, else None."""
        with self._lock:
            for group in self._principals.values():
                is_member = (group.client_id, principal.client_id) in self._members
                if is_member and group.display_name == name:
                    return group
        return None

    # -- signing in to the workspace

    def authenticate(self, client_id: str, client_secret: str) -> Principal | None:
        """Return the identity with this client ID and secret, else None. Groups cannot sign in."""
        with self._lock:
            principal = self._principals.get(client_id)
        if (
            principal
            and principal.identity_type != "GROUP"
            and secrets.compare_digest(principal.client_secret.encode(), client_secret.encode())
        ):
            return principal
        return None

    def trust_identity_token(self, token: str, principal: Principal) -> None:
        """Accept this token of another identity provider as proof of being ``principal``."""
        _refuse_group(principal)
        with self._lock:
            self._identity_tokens[token] = principal
            self.secrets.append(token)

    def identity_token_owner(self, token: str, client_id: str) -> Principal | None:
        """Return the identity of a trusted token, else None. For a service principal, ``client_id`` must name it."""
        with self._lock:
            principal = self._identity_tokens.get(token)
        named = "" if principal and principal.identity_type == "USER" else principal and principal.client_id
        return principal if client_id == named else None

    # -- tokens for the workspace API

    def issue_workspace_token(self, principal: Principal) -> str:
        """Issue a workspace token that is valid for ``WORKSPACE_TOKEN_SECONDS``."""
        issued = Issued(principal, self.clock() + WORKSPACE_TOKEN_SECONDS)
        return self._store(self._tokens, self._token("lbw", issued), issued)

    def issue_personal_access_token(self, principal: Principal) -> str:
        """Issue a personal access token, which does not expire; raise ``ValueError`` for a group."""
        _refuse_group(principal)
        return self._store(self._tokens, f"dapi{secrets.token_hex(16)}", Issued(principal, math.inf))

    def workspace_token_owner(self, text: str) -> Principal | None:
        """Return the owner of a workspace token or personal access token; None if it is unknown or expired."""
        with self._lock:
            issued = self._tokens.get(text)
        return issued.principal if issued and issued.expires_at > self.clock() else None

    # -- credentials for the database

    def issue_credential(self, principal: Principal, expires_at: float, *, read_only: bool = False) -> str:
        """Issue a database credential that is valid until ``expires_at``."""
        issued = Issued(principal, expires_at, read_only)
        return self._store(self._credentials, self._token("lbc", issued), issued)

    def credential(self, text: str) -> Issued | None:
        """Return a credential, expired or not; None if it was never issued."""
        with self._lock:
            return self._credentials.get(text)

    def expire_credentials(self) -> None:
        """Expire every credential issued so far."""
        now = self.clock()
        with self._lock:
            for text, issued in self._credentials.items():
                self._credentials[text] = replace(issued, expires_at=min(issued.expires_at, now))

    def _token(self, prefix: str, issued: Issued) -> str:
        """Return a new token: a JWT, whose signature nobody checks, or opaque text with a prefix."""
        if self.opaque:
            return f"{prefix}.{secrets.token_urlsafe(64)}"
        header = {"alg": "RS256", "typ": "JWT"}
        payload = {
            "sub": issued.principal.role,
            "client_id": issued.principal.client_id,
            "iat": int(self.clock()),
            "exp": int(issued.expires_at),
            "jti": str(uuid.uuid4()),
        }
        parts = [json.dumps(part, separators=(",", ":")).encode() for part in (header, payload)]
        return ".".join(_base64url(part) for part in (*parts, secrets.token_bytes(256)))

    def _store(self, issued_by_text: dict[str, Issued], text: str, issued: Issued) -> str:
        with self._lock:
            issued_by_text[text] = issued
            self.secrets.append(text)
        return text


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _refuse_group(principal: Principal) -> None:
    if principal.identity_type == "GROUP":
        raise ValueError(f"{principal.display_name!r} is a group; groups cannot sign in")
