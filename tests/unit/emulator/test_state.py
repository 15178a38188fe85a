from __future__ import annotations

import pytest

from airflow_provider_lakebase.emulator.state import TRANSITIONS, Principal, State


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(clock: Clock) -> State:
    return State(clock=clock, suspend_timeout=60, asleep=False)


@pytest.fixture
def principal(state: State) -> Principal:
    return state.add_principal("p", identity_type="SERVICE_PRINCIPAL", workspace_access=True, can_use_project=True)


def test_states_move_by_the_table_only(state: State) -> None:
    events = [("suspend", "IDLE"), ("activate", "IDLE"), ("wake", "INIT"), ("wake", "INIT"), ("activate", "ACTIVE")]
    for event, expected in [("wake", "ACTIVE"), *events, ("wake", "ACTIVE")]:
        before = state.endpoint.state
        assert state.move(event) == ((before, event) in TRANSITIONS)
        assert state.endpoint.state == expected


def test_suspend_is_due_after_the_timeout_without_traffic(state: State, clock: Clock) -> None:
    clock.now += 59
    assert not state.suspend_is_due()
    state.touch()
    clock.now += 59
    assert not state.suspend_is_due()
    clock.now += 1
    assert state.suspend_is_due()
    state.move("suspend")
    assert not state.suspend_is_due()


def test_waking_counts_as_traffic(state: State, clock: Clock) -> None:
    state.move("suspend")
    clock.now += 1000
    state.move("wake")
    state.move("activate")
    assert not state.suspend_is_due()


def test_workspace_token_lives_an_hour(state: State, clock: Clock, principal: Principal) -> None:
    token = state.issue_workspace_token(principal)
    clock.now += 3599
    assert state.workspace_token_owner(token) == principal
    clock.now += 1
    assert state.workspace_token_owner(token) is None


def test_expiring_credentials_leaves_later_ones_alone(state: State, clock: Clock, principal: Principal) -> None:
    early = state.issue_credential(principal, clock.now + 3600)
    state.expire_credentials()
    late = state.issue_credential(principal, clock.now + 3600)
    first, second = state.credential(early), state.credential(late)
    assert first and second
    assert first.expires_at <= clock.now < second.expires_at


def test_only_the_right_secret_authenticates(state: State, principal: Principal) -> None:
    assert state.authenticate(principal.client_id, principal.client_secret) == principal
    assert state.authenticate(principal.client_id, "é") is None
    assert state.authenticate("nobody", principal.client_secret) is None


def test_group_authenticates_nowhere(state: State) -> None:
    group = state.add_principal("g", identity_type="GROUP", workspace_access=True, can_use_project=True)
    assert state.authenticate(group.client_id, group.client_secret) is None


def test_unknown_identity_type_is_refused(state: State) -> None:
    with pytest.raises(ValueError, match="SERVICE_PRINCIPAL, USER, GROUP"):
        state.add_principal("x", identity_type="ROBOT", workspace_access=True, can_use_project=True)


def test_secrets_are_long_opaque_remembered_and_not_shown(state: State, clock: Clock, principal: Principal) -> None:
    given = [principal.client_secret, state.issue_workspace_token(principal), state.issue_credential(principal, 0)]
    assert state.secrets == given
    for secret in given:
        assert len(secret) >= 64
        assert not secret.startswith("eyJ")
    assert principal.client_secret not in repr(principal)


@pytest.mark.parametrize(
    ("kind", "expected"), [("SERVICE_PRINCIPAL", None), ("USER", "ann@example.com"), ("GROUP", "ann@example.com")]
)
def test_role_is_named_as_lakebase_names_it(state: State, kind: str, expected: str | None) -> None:
    identity = state.add_principal("ann@example.com", identity_type=kind, workspace_access=True, can_use_project=True)
    assert identity.role == (expected or identity.client_id)
