"""Who may do what on a project. No I/O."""

from __future__ import annotations

from airflow_provider_lakebase.emulator.model.errors import Json
from airflow_provider_lakebase.emulator.model.identities import Identities, Principal

CAN_CREATE, CAN_USE, CAN_MANAGE = LEVELS = ("CAN_CREATE", "CAN_USE", "CAN_MANAGE")


class AccessList:
    """The permissions on a project.

    An administrator of the workspace has them all. An identity without an entry has what ``add_principal`` said, if the
    project came with the emulator, and nothing on a project that the API made.
    """

    def __init__(self, identities: Identities, *, came_with_emulator: bool) -> None:
        self._identities = identities
        self._came_with_emulator = came_with_emulator
        self._levels: dict[str, str | None] = {}

    def level(self, principal: Principal) -> str | None:
        """Return the highest level of an identity, by itself or by a group; None if it has none."""
        if principal.is_admin:
            return CAN_MANAGE
        found = [self._own(each) for each in (principal, *self._identities.groups_of(principal))]
        return max((each for each in found if each), key=LEVELS.index, default=None)

    def allows(self, principal: Principal, level: str) -> bool:
        """Return whether an identity has this level or a higher one."""
        own = self.level(principal)
        return own is not None and LEVELS.index(own) >= LEVELS.index(level)

    def entries(self) -> list[tuple[Principal, str]]:
        """Return the identities that have a level of their own, and that level."""
        levels = [(each, CAN_MANAGE if each.is_admin else self._own(each)) for each in self._identities.principals()]
        return [(principal, level) for principal, level in levels if level]

    def grant(self, principal: Principal, level: str) -> None:
        """Give an identity a level."""
        self._levels[principal.client_id] = level

    def replace(self, levels: dict[str, str]) -> None:
        """Give the identities these levels, by client ID, and all others none."""
        self._levels = {each.client_id: levels.get(each.client_id) for each in self._identities.principals()}

    def saved(self) -> Json:
        """Return it as JSON."""
        return {"came_with_emulator": self._came_with_emulator, "levels": dict(self._levels)}

    @classmethod
    def restored(cls, identities: Identities, saved: Json) -> AccessList:
        """Return a saved one."""
        access = cls(identities, came_with_emulator=saved["came_with_emulator"])
        access._levels = dict(saved["levels"])
        return access

    def _own(self, principal: Principal) -> str | None:
        default = CAN_MANAGE if self._came_with_emulator and principal.can_use_project else None
        return self._levels.get(principal.client_id, default)
