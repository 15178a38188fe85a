"""The discovery documents and the token endpoint, which issue workspace tokens. They need no workspace token."""

from __future__ import annotations

import base64
import binascii
import urllib.parse
from collections.abc import Callable

from airflow_provider_lakebase.emulator.api.messages import TOKEN_PATH, Call, OAuthError
from airflow_provider_lakebase.emulator.model.errors import Json
from airflow_provider_lakebase.emulator.model.identities import WORKSPACE_TOKEN_SECONDS, Principal
from airflow_provider_lakebase.emulator.model.workspace import Workspace

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name
JWT = "urn:ietf:params:oauth:token-type:jwt"


def _databricks_config(workspace: Workspace, call: Call) -> tuple[None, Json]:
    return None, {"oidc_endpoint": f"{call.url}/oidc", "cloud": "AWS", "workspace_id": str(workspace.workspace_id)}


def _oauth_server(workspace: Workspace, call: Call) -> tuple[None, Json]:
    return None, {
        "issuer": f"{call.url}/oidc",
        "authorization_endpoint": f"{call.url}/oidc/v1/authorize",
        "token_endpoint": f"{call.url}/oidc/v1/token",
        "grant_types_supported": ["client_credentials", TOKEN_EXCHANGE],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    }


def _workspace_token(workspace: Workspace, call: Call) -> tuple[Principal, Json]:
    if call.method != "POST":
        raise OAuthError(405, "invalid_request", "only POST is supported")
    form = dict(urllib.parse.parse_qsl(call.body.decode("utf-8", "replace")))
    grant = _GRANTS.get(form.get("grant_type", ""))
    if grant is None:
        raise OAuthError(400, "unsupported_grant_type", f"supported are {', '.join(_GRANTS)}")
    principal = grant(workspace, call, form)
    token = workspace.identities.issue_workspace_token(principal)
    return principal, {
        "access_token": token,
        "token_type": "Bearer",
        "scope": "all-apis",
        "expires_in": int(WORKSPACE_TOKEN_SECONDS),
    }


def _by_secret(workspace: Workspace, call: Call, form: dict[str, str]) -> Principal:
    principal = workspace.identities.authenticate(*_client(call, form))
    if principal is None:
        raise OAuthError(401, "invalid_client", "Client authentication failed")
    return principal


def _by_identity_token(workspace: Workspace, call: Call, form: dict[str, str]) -> Principal:
    if form.get("subject_token_type") != JWT:
        raise OAuthError(400, "invalid_request", f"subject_token_type must be {JWT}")
    owner = workspace.identities.identity_token_owner(form.get("subject_token", ""), form.get("client_id", ""))
    if owner is None:
        raise OAuthError(400, "invalid_grant", "No federation policy of this identity accepts the subject token")
    return owner


def _client(call: Call, form: dict[str, str]) -> tuple[str, str]:
    """Return client ID and secret, from HTTP Basic authentication or else from the form."""
    scheme, _, value = call.authorization.partition(" ")
    if scheme.lower() != "basic":
        return form.get("client_id", ""), form.get("client_secret", "")
    try:
        client_id, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return client_id, secret


_GRANTS: dict[str, Callable[[Workspace, Call, dict[str, str]], Principal]] = {
    "client_credentials": _by_secret,
    TOKEN_EXCHANGE: _by_identity_token,
}

ROUTES: dict[str, Callable[[Workspace, Call], tuple[Principal | None, Json]]] = {
    "/.well-known/databricks-config": _databricks_config,
    "/oidc/.well-known/oauth-authorization-server": _oauth_server,
    TOKEN_PATH: _workspace_token,
}
