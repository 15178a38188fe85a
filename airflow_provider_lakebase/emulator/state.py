"""What the workspace knows: identities, what was issued to them, and the state of the one endpoint.

No I/O, and the clock is handed in (seconds since 1970). Every method takes the lock, so any thread may call.
"""

from __future__ import annotations

import secrets
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

PROJECT = "projects/demo"
BRANCH = f"{PROJECT}/branches/production"
ENDPOINT = f"{BRANCH}/endpoints/primary"

WORKSPACE_TOKEN_SECONDS = 3600.0
CREDENTIAL_SECONDS = 3600.0
MIN_CREDENTIAL_SECONDS = 300.0

IDENTITY_TYPES = ("SERVICE_PRINCIPAL", "USER", "GROUP")

# (state, event) → state. An event that is not listed for a state leaves it as it is.
TRANSITIONS = {
    ("IDLE", "wake"): "INIT",
    ("INIT", "activate"): "ACTIVE",
    ("INIT", "suspend"): "IDLE",
    ("ACTIVE", "suspend"): "IDLE",
}


@dataclass(frozen=True)
class Principal:
    """An identity of the workspace, with the OAuth secret that it authenticates by."""

    client_id: str
    client_secret: str = field(repr=False)
    display_name: str
    identity_type: str
    scim_id: str
    workspace_access: bool = True
    can_use_project: bool = True

    @property
    def role(self) -> str:
        """Return the name of its Postgres role: a service principal's client ID, a user's e-mail, a group's name."""
        return self.client_id if self.identity_type == "SERVICE_PRINCIPAL" else self.display_name

    @property
    def label(self) -> str:
        """Return the security label that marks the role as this identity's."""
        return f"id={self.scim_id},type={self.identity_type.lower()}"


@dataclass(frozen=True)
class Issued:
    """A workspace token or a database credential: whose it is and until when it opens something."""

    principal: Principal
    expires_at: float


@dataclass(frozen=True)
class EndpointView:
    """The endpoint at one moment."""

    state: str
    disabled: bool
    last_active_at: float
    updated_at: float


class State:
    """The workspace: one project with one branch and one endpoint, its identities and what was issued."""

    def __init__(
        self, *, clock: Callable[[], float], suspend_timeout: float, asleep: bool, postgres_version: int = 18
    ) -> None:
        self.clock = clock
        self.suspend_timeout = suspend_timeout
        self.postgres_version = postgres_version
        self.owner = ""
        self.created_at = clock()
        self.workspace_id = secrets.randbelow(9 * 10**15) + 10**15
        self.project_uid = str(uuid.uuid4())
        self.branch_uid = f"br-{uuid.uuid4().hex[:20]}"
        self.endpoint_uid = f"ep-{uuid.uuid4().hex[:20]}"
        self.secrets: list[str] = []
        self._lock = threading.Lock()
        self._principals: dict[str, Principal] = {}
        self._tokens: dict[str, Issued] = {}
        self._credentials: dict[str, Issued] = {}
        self._endpoint = EndpointView("IDLE" if asleep else "ACTIVE", False, self.created_at, self.created_at)

    # -- identities and what is issued to them

    def add_principal(
        self, display_name: str, *, identity_type: str, workspace_access: bool, can_use_project: bool
    ) -> Principal:
        """Add an identity; raise ``ValueError`` for an identity type that does not exist."""
        if identity_type not in IDENTITY_TYPES:
            raise ValueError(f"identity_type is one of {', '.join(IDENTITY_TYPES)}, not {identity_type!r}")
        principal = Principal(
            client_id=str(uuid.uuid4()),
            client_secret=f"dose{secrets.token_hex(32)}",
            display_name=display_name,
            identity_type=identity_type,
            scim_id=str(secrets.randbelow(9 * 10**15) + 10**15),
            workspace_access=workspace_access,
            can_use_project=can_use_project,
        )
        with self._lock:
            self._principals[principal.client_id] = principal
            self.secrets.append(principal.client_secret)
        return principal

    def principals(self) -> list[Principal]:
        """Return every identity of the workspace."""
        with self._lock:
            return list(self._principals.values())

    def authenticate(self, client_id: str, client_secret: str) -> Principal | None:
        """Return the identity whose client ID and secret these are; a group authenticates nowhere."""
        with self._lock:
            principal = self._principals.get(client_id)
        if (
            principal
            and principal.identity_type != "GROUP"
            and secrets.compare_digest(principal.client_secret.encode(), client_secret.encode())
        ):
            return principal
        return None

    def issue_workspace_token(self, principal: Principal) -> str:
        """Issue a workspace token that lives ``WORKSPACE_TOKEN_SECONDS``."""
        return self._issue(self._tokens, "lbw", Issued(principal, self.clock() + WORKSPACE_TOKEN_SECONDS))

    def issue_credential(self, principal: Principal, expires_at: float) -> str:
        """Issue a database credential that opens logins until ``expires_at``."""
        return self._issue(self._credentials, "lbc", Issued(principal, expires_at))

    def _issue(self, book: dict[str, Issued], prefix: str, issued: Issued) -> str:
        # Not a JWT: what looks like one is redacted by log filters, and a test for leaks would prove nothing.
        text = f"{prefix}.{secrets.token_urlsafe(64)}"
        with self._lock:
            book[text] = issued
            self.secrets.append(text)
        return text

    def workspace_token_owner(self, text: str) -> Principal | None:
        """Return whose workspace token this is, unless it is unknown or expired."""
        with self._lock:
            issued = self._tokens.get(text)
        return issued.principal if issued and issued.expires_at > self.clock() else None

    def credential(self, text: str) -> Issued | None:
        """Return the credential, expired or not; None if it was never issued."""
        with self._lock:
            return self._credentials.get(text)

    def expire_credentials(self) -> None:
        """Expire every credential issued so far."""
        now = self.clock()
        with self._lock:
            for text, issued in self._credentials.items():
                self._credentials[text] = replace(issued, expires_at=min(issued.expires_at, now))

    # -- the endpoint

    @property
    def endpoint(self) -> EndpointView:
        """Return the endpoint as it is now; looking does not wake it."""
        with self._lock:
            return self._endpoint

    def move(self, event: str) -> bool:
        """Apply ``wake``, ``activate`` or ``suspend``; return whether the state changed."""
        now = self.clock()
        with self._lock:
            state = TRANSITIONS.get((self._endpoint.state, event))
            if state is None:
                return False
            active_at = self._endpoint.last_active_at if event == "suspend" else now
            self._endpoint = replace(self._endpoint, state=state, last_active_at=active_at, updated_at=now)
            return True

    def set_disabled(self, disabled: bool) -> None:
        """Forbid or allow logins and wakes."""
        now = self.clock()
        with self._lock:
            self._endpoint = replace(self._endpoint, disabled=disabled, updated_at=now)

    def touch(self) -> None:
        """Note traffic, which postpones the suspend."""
        now = self.clock()
        with self._lock:
            self._endpoint = replace(self._endpoint, last_active_at=now)

    def suspend_is_due(self) -> bool:
        """Return whether the endpoint is active and was without traffic for ``suspend_timeout`` seconds."""
        endpoint = self.endpoint
        return endpoint.state == "ACTIVE" and self.clock() - endpoint.last_active_at >= self.suspend_timeout
