"""The clients, codes and tokens of managed OAuth, which the state folder keeps by their digests."""

import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from fastapi_cloudflare_access.local.config import App
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.local.state import Client, Grant, Session
from fastapi_cloudflare_access.local.team import sha256_hex

ACCESS_TOKEN_LIFETIME = 900
"""Seconds that an access token, and the assertion made for it, is valid."""
CODE_LIFETIME = 60
"""Seconds that an authorization code is valid."""
MAX_ENTRIES = 1000
"""Most stored clients, and most stored tokens; the oldest is removed first."""
TOKEN_PREFIX = "oauth:"  # noqa: S105 - how an access token begins

Entry = TypeVar("Entry")

_LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


class OAuthError(Exception):
    """An error of RFC 6749, RFC 7591 or RFC 8707.

    Attributes:
        code: Its registered name.
    """

    def __init__(self, code: str, description: str) -> None:
        """Store the name and a description for developers."""
        super().__init__(description)
        self.code = code


class Grants:
    """The clients, codes and tokens of one local Access."""

    def __init__(self, local_access: LocalAccess) -> None:
        """Store the local Access, whose state keeps them."""
        self._local_access = local_access
        self._oauth = local_access.state.oauth

    def register(self, redirect_uris: list[str]) -> str:
        """Store a client, and return its id."""
        client = secrets.token_hex(16)
        self._put(self._oauth.clients, client, Client(redirect_uris))
        return client

    def redirect_uris(self, client: str) -> list[str]:
        """Return the redirect URIs of a client; none for an unknown one."""
        found = self._oauth.clients.get(client)
        return found.redirect_uris if found else []

    def issue_code(self, grant: Grant) -> str:
        """Return a new authorization code."""
        return self._issue(self._oauth.codes, "", grant)

    def issue_tokens(self, grant: Grant) -> dict[str, Any]:
        """Return a token response (RFC 6749 section 5.1), with a refresh token that lasts as long as the session."""
        session = self._session(grant)
        now = self._local_access.clock.now()
        base = {"client": grant.client, "session": grant.session, "tag": grant.tag}
        access = Grant(**base, expires=now + ACCESS_TOKEN_LIFETIME)
        return {
            "access_token": self._issue(self._oauth.access, TOKEN_PREFIX, access),
            "token_type": "Bearer",
            "expires_in": ACCESS_TOKEN_LIFETIME,
            "refresh_token": self._issue(self._oauth.refresh, "", Grant(**base, expires=session.expires)),
        }

    def redeem_code(self, code: str, client: str, redirect_uri: str, verifier: str) -> Grant:
        """Return the grant of a code, which is valid once.

        Raises:
            OAuthError: The code, its client, its redirect URI or the PKCE verifier is wrong.
        """
        grant = self._take(self._oauth.codes, code, client)
        challenge = urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        if redirect_uri != grant.redirect_uri or not secrets.compare_digest(challenge, grant.challenge):
            raise OAuthError("invalid_grant", "redirect_uri or code_verifier is not the one of the code")
        return grant

    def redeem_refresh_token(self, token: str, client: str) -> Grant:
        """Return the grant of a refresh token, which is valid once.

        Raises:
            OAuthError: The token or its client is wrong, or the session has ended.
        """
        return self._take(self._oauth.refresh, token, client)

    def revoke(self, token: str) -> None:
        """Remove an access token or a refresh token."""
        for known in (self._oauth.access, self._oauth.refresh):
            known.pop(sha256_hex(token), None)
        self._local_access.state.save()

    def access_grant(self, token: str, app: App) -> Grant | None:
        """Return the grant of an access token for an app, or None."""
        grant = self._oauth.access.get(sha256_hex(token))
        if grant is None or grant.tag != app.tag or grant.expires <= self._local_access.clock.now():
            return None
        return grant

    def _take(self, known: dict[str, Grant], value: str, client: str) -> Grant:
        grant = known.pop(sha256_hex(value), None)
        self._local_access.state.save()
        if grant is None or grant.client != client or grant.expires <= self._local_access.clock.now():
            raise OAuthError("invalid_grant", "it is unknown, expired, used before, or of another client")
        self._session(grant)
        return grant

    def _session(self, grant: Grant) -> Session:
        session = self._local_access.state.sessions.get(grant.session)
        if session is None or session.ended or session.expires <= self._local_access.clock.now():
            raise OAuthError("invalid_grant", "the session of the user has ended")
        return session

    def _issue(self, known: dict[str, Grant], prefix: str, grant: Grant) -> str:
        value = prefix + secrets.token_urlsafe(32)
        self._put(known, sha256_hex(value), grant)
        return value

    def _put(self, known: dict[str, Entry], key: str, entry: Entry) -> None:
        while len(known) >= MAX_ENTRIES:
            del known[next(iter(known))]
        known[key] = entry
        self._local_access.state.save()


def is_allowed_redirect(uri: object, apps: tuple[App, ...]) -> bool:
    """Return whether a client may register a redirect URI: a loopback one, or one that an app names."""
    if not isinstance(uri, str) or len(uri) > 2000 or "#" in uri:  # noqa: PLR2004 - far above any real one
        return False
    return any(uri in app.oauth_redirects for app in apps) or _loopback(uri) is not None


def matches_redirect(uri: str, registered: list[str]) -> bool:
    """Return whether a redirect URI is registered; on the loopback any port is (RFC 8252 section 7.3)."""
    return uri in registered or _without_port(uri) in {_without_port(known) for known in registered}


def _without_port(uri: str) -> str:
    parts = _loopback(uri)
    return f"http://{parts.hostname}{parts.path}?{parts.query}" if parts else uri


def _loopback(uri: str) -> SplitResult | None:
    """Return the parts of a URI on the loopback, or None."""
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None
    is_plain = uri.isascii() and uri.isprintable() and parts.username is None
    return parts if is_plain and parts.scheme == "http" and parts.hostname in _LOOPBACK_HOSTS else None
