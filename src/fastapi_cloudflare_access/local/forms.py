"""Forms that only a page of our own can have sent, and bodies of bounded size."""

import hmac
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import parse_qsl

from fastapi_cloudflare_access.local.cookies import TEAM_SESSION
from fastapi_cloudflare_access.local.edge_request import MAX_FIELDS, Call
from fastapi_cloudflare_access.local.local_access import Realm

MAX_BODY = 16_384


def team_session(call: Call) -> str | None:
    """Give the browser's session on the team domain."""
    found = [value for value in call.cookies(TEAM_SESSION) if value.isalnum() and len(value) == 32]  # noqa: PLR2004 - hex
    return found[0] if found else None


def new_team_session() -> str:
    """Make a session for a browser that has none."""
    return secrets.token_hex(16)


def csrf_of(realm: Realm, session: str) -> str:
    """Give what a form of that session must bring along."""
    return hmac.new(realm.state.secret.encode(), session.encode(), "sha256").hexdigest()


def is_ours(call: Call, realm: Realm, form: dict[str, str]) -> bool:
    """Tell whether the form comes from a page that this browser got from here."""
    session = team_session(call)
    if session is None or not is_same_site(call):
        return False
    return hmac.compare_digest(csrf_of(realm, session).encode(), form.get("csrf", "").encode())


def is_same_site(call: Call) -> bool:
    """Tell that no page from elsewhere has sent this; what sends neither header is no browser."""
    origin = call.get("origin")
    is_own = origin in ("", f"{call.scheme}://{call.netloc}")
    return is_own and call.get("sec-fetch-site") in ("", "none", "same-origin")


async def read_form(pieces: AsyncIterator[bytes]) -> dict[str, str]:
    """Read a form; one that is too long is empty."""
    body = await _read(pieces)
    try:
        return dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        return {}


async def read_json(pieces: AsyncIterator[bytes]) -> dict[str, Any] | None:
    """Read a JSON object; None where it is none. An empty body is an empty one."""
    body = await _read(pieces)
    try:
        value: object = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


async def _read(pieces: AsyncIterator[bytes]) -> bytes:
    body = b""
    async for piece in pieces:
        body += piece
        if len(body) > MAX_BODY:
            return b""
    return body
