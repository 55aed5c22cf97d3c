"""The state of a local Access as JSON, without tokens and secrets."""

from typing import Any

from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.local.state import Session

Values = dict[str, Any]


def describe_state(local_access: LocalAccess) -> Values:
    """Return the whole state, without tokens and secrets."""
    return {
        "team": _team(local_access),
        "certs": {"fault": local_access.fault, "fetches": local_access.certs.fetches},
        "keys": _keys(local_access),
        "apps": _apps(local_access),
        "people": [
            {**person.model_dump(mode="json"), "trimmed": person.email in local_access.team.trimmed}
            for person in local_access.config.people
        ],
        "service_tokens": [{"name": name, "client_id": client_id} for client_id, name in local_access.services.items()],
        "sessions": [_session(entry) for entry in reversed(local_access.state.sessions.values())],
    }


def _team(local_access: LocalAccess) -> Values:
    return {
        "name": local_access.config.team.name,
        "issuer": local_access.addresses.issuer,
        "token_issuer": local_access.team.issuer,
        "is_renamed": local_access.addresses.is_renamed,
        "groups": local_access.team.group_shape,
        "now": local_access.clock.now(),
        "shift": local_access.clock.shift,
    }


def _keys(local_access: LocalAccess) -> list[Values]:
    team = local_access.team
    return [
        {"kid": key.kid, "is_current": key is team.current, "age": round(team.age_of(key))}
        for key in reversed(team.keys)
    ]


def _apps(local_access: LocalAccess) -> list[Values]:
    return [
        {
            "name": app.name,
            "origin": local_access.addresses.origin(app.host),
            "paths": list(app.paths),
            "audience": app.tag,
        }
        for app in local_access.config.apps
    ]


def _session(session: Session) -> Values:
    return {
        "id": session.id,
        "email": session.email,
        "created": session.created,
        "expires": session.expires,
        "ended": session.ended,
        "tokens": session.tokens,
    }
