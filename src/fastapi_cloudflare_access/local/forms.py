"""Forms with CSRF protection, and request bodies of bounded size."""

import hmac
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import parse_qsl

from fastapi_cloudflare_access.local.cookies import TEAM_SESSION
from fastapi_cloudflare_access.local.edge_request import MAX_FIELDS, EdgeRequest
from fastapi_cloudflare_access.local.local_access import LocalAccess

MAX_BODY = 16_384
"""Largest request body, in bytes."""


def team_session(request: EdgeRequest) -> str | None:
    """Return the id of the browser's session on the team domain, or None."""
    found = [value for value in request.cookies(TEAM_SESSION) if value.isalnum() and len(value) == 32]  # noqa: PLR2004 - hex
    return found[0] if found else None


def new_team_session() -> str:
    """Return a new session id for a browser."""
    return secrets.token_hex(16)


def csrf_token(local_access: LocalAccess, session: str) -> str:
    """Return the CSRF token of a session."""
    return hmac.new(local_access.state.secret.encode(), session.encode(), "sha256").hexdigest()


def has_valid_csrf_token(request: EdgeRequest, local_access: LocalAccess, form: dict[str, str]) -> bool:
    """Check that the form has the CSRF token of this browser's session."""
    session = team_session(request)
    if session is None or not is_same_origin(request):
        return False
    return hmac.compare_digest(csrf_token(local_access, session).encode(), form.get("csrf", "").encode())


def is_same_origin(request: EdgeRequest) -> bool:
    """Check that no page of another origin sent the request."""
    origin = request.get("origin")
    is_own = origin in ("", f"{request.scheme}://{request.netloc}")
    return is_own and request.get("sec-fetch-site") in ("", "none", "same-origin")


async def read_form(chunks: AsyncIterator[bytes]) -> dict[str, str]:
    """Read a form; return no fields if it is too long."""
    body = await _read_body(chunks)
    try:
        return dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        return {}


async def read_json(chunks: AsyncIterator[bytes]) -> dict[str, Any] | None:
    """Read a JSON object, empty for an empty body; return None for other content."""
    body = await _read_body(chunks)
    try:
        value: object = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


async def _read_body(chunks: AsyncIterator[bytes]) -> bytes:
    body = b""
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_BODY:
            return b""
    return body
