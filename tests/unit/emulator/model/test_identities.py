from __future__ import annotations

import base64
import json

import pytest

from airflow_provider_lakebase.emulator.model.identities import Identities, Principal


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def identities(clock: Clock) -> Identities:
    return Identities(clock)


@pytest.fixture
def principal(identities: Identities) -> Principal:
    return identities.add_principal("p")


def test_workspace_token_lives_an_hour(identities: Identities, clock: Clock, principal: Principal) -> None:
    token = identities.issue_workspace_token(principal)
    clock.now += 3599
    assert identities.workspace_token_owner(token) == principal
    clock.now += 1
    assert identities.workspace_token_owner(token) is None


def test_expiring_credentials_leaves_later_ones_alone(
    identities: Identities, clock: Clock, principal: Principal
) -> None:
    early = identities.issue_credential(principal, clock.now + 3600)
    identities.expire_credentials()
    late = identities.issue_credential(principal, clock.now + 3600)
    first, second = identities.credential(early), identities.credential(late)
    assert first and second
    assert first.expires_at <= clock.now < second.expires_at


def test_only_the_right_secret_authenticates(identities: Identities, principal: Principal) -> None:
    assert identities.authenticate(principal.client_id, principal.client_secret) == principal
    assert identities.authenticate(principal.client_id, "é") is None
    assert identities.authenticate("nobody", principal.client_secret) is None


def test_group_authenticates_nowhere(identities: Identities) -> None:
    group = identities.add_principal("g", identity_type="GROUP")
    assert identities.authenticate(group.client_id, group.client_secret) is None


def test_unknown_identity_type_is_refused(identities: Identities) -> None:
    with pytest.raises(ValueError, match="SERVICE_PRINCIPAL, USER, GROUP"):
        identities.add_principal("x", identity_type="ROBOT")


def test_secrets_are_long_remembered_and_not_shown(identities: Identities, principal: Principal) -> None:
    given = [
        principal.client_secret,
        identities.issue_workspace_token(principal),
        identities.issue_credential(principal, 0),
    ]
    assert identities.secrets == given
    for secret in given:
        assert len(secret) >= 64
    assert principal.client_secret not in repr(principal)


def test_tokens_are_jwts_by_shape_or_opaque(identities: Identities, principal: Principal) -> None:
    token = identities.issue_credential(principal, 1_700_000_000.0)
    header, payload, signature = (base64.urlsafe_b64decode(part + "==") for part in token.split("."))
    assert json.loads(header) == {"alg": "RS256", "typ": "JWT"}
    assert (json.loads(payload)["sub"], json.loads(payload)["exp"]) == (principal.role, 1_700_000_000)
    assert len(signature) == 256
    assert token != identities.issue_credential(principal, 1_700_000_000.0)
    identities.opaque = True
    for opaque in (identities.issue_credential(principal, 0), identities.issue_workspace_token(principal)):
        assert not opaque.startswith("eyJ")


@pytest.mark.parametrize(
    ("kind", "expected"), [("SERVICE_PRINCIPAL", None), ("USER", "ann@example.com"), ("GROUP", "ann@example.com")]
)
def test_role_is_named_as_lakebase_names_it(identities: Identities, kind: str, expected: str | None) -> None:
    identity = identities.add_principal("ann@example.com", identity_type=kind)
    assert identity.role == (expected or identity.client_id)


def test_personal_access_token_does_not_expire(identities: Identities, clock: Clock, principal: Principal) -> None:
    token = identities.issue_personal_access_token(principal)
    clock.now += 10**9
    assert token.startswith("dapi")
    assert identities.workspace_token_owner(token) == principal
    assert token in identities.secrets


def test_group_gets_no_tokens(identities: Identities) -> None:
    group = identities.add_principal("g", identity_type="GROUP")
    with pytest.raises(ValueError, match="groups cannot sign in"):
        identities.issue_personal_access_token(group)
    with pytest.raises(ValueError, match="groups cannot sign in"):
        identities.trust_identity_token("token", group)


def test_identity_token_proves_the_identity_it_was_trusted_for(identities: Identities, principal: Principal) -> None:
    user = identities.add_principal("ann@example.com", identity_type="USER")
    identities.trust_identity_token("of the principal", principal)
    identities.trust_identity_token("of the user", user)
    assert identities.identity_token_owner("of the principal", principal.client_id) == principal
    assert identities.identity_token_owner("of the principal", "") is None
    assert identities.identity_token_owner("of the principal", user.client_id) is None
    assert identities.identity_token_owner("of the user", "") == user
    assert identities.identity_token_owner("of nobody", "") is None


def test_members_belong_to_their_group(identities: Identities, principal: Principal) -> None:
    group = identities.add_principal("analysts", identity_type="GROUP")
    other = identities.add_principal("others", identity_type="GROUP")
    identities.add_member(group, principal)
    assert identities.group_of(principal, "analysts") == group
    assert identities.group_of(principal, "others") is None
    assert identities.group_of(other, "analysts") is None
    with pytest.raises(ValueError, match="not a GROUP"):
        identities.add_member(principal, group)
