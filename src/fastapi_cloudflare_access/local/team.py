"""The team: it signs tokens with stored keys, and verifies only its own tokens."""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access._verification.strict import EncodingProblem, parse_json_object
from fastapi_cloudflare_access._verification.token import parse
from fastapi_cloudflare_access.errors import CredentialError
from fastapi_cloudflare_access.local.config import App, Config, Person
from fastapi_cloudflare_access.local.state import Session, State, StoredKey, to_pem
from fastapi_cloudflare_access.protocols import Clock
from fastapi_cloudflare_access.testing._issuer import Issuer, SigningKey, compact_json

Claims = dict[str, Any]

GROUP_SHAPES = {
    "list": "a list of names",
    "text": "one text, with commas",
    "objects": "a list of objects with id and name",
}
"""Shapes of groups in tokens, with the text for the control page."""
MAX_PAYLOAD = 2500
"""Most bytes of claims, so that a cookie with the encoded token stays below 4096 bytes."""


class Team(Issuer):
    """The issuer of a local Access, with random keys that the state stores.

    Attributes:
        own_issuers: Names of the team that its own tokens carry.
        group_shape: Shape of groups in new tokens.
        trimmed: Addresses of users whose new tokens have no `custom` claims.
    """

    def __init__(self, issuer: str, *, config: Config, state: State, clock: Clock) -> None:
        """Load the keys from the state, or generate them.

        Raises:
            ConfigurationError: The state cannot be written.
        """
        self._state = state
        stored = [(SigningKey.of(key.private), key.issued) for key in state.keys]
        super().__init__(
            issuer,
            name=config.team.name,
            audiences=config.tags,
            clock=clock,
            new_key=_key_supply([key for key, _ in stored]),
        )
        self.own_issuers = frozenset({issuer})
        self.group_shape = "list"
        self.trimmed: set[str] = set()
        if len(stored) == 1:
            self.previous = None
        self._issued.update({key.kid: issued for key, issued in stored})
        self._verification_keys: dict[str, RS256Key] = {}
        self._save_keys()

    def rotate(self) -> None:
        """Add a new signing key, and store it."""
        super().rotate()
        self._save_keys()

    def withdraw(self) -> None:
        """Remove the previous key from the certs and the state."""
        super().withdraw()
        self._save_keys()

    def age_of(self, key: SigningKey) -> float:
        """Return the age of a key, in seconds."""
        return max(0.0, self.clock.now() - self._issued[key.kid])

    def verified_claims(self, token: str, *types: str) -> Claims | None:
        """Verify a token of one of these types, and return its claims or None."""
        try:
            parsed = parse(token.encode("ascii"))
            key = self._published_key(parsed.kid)
            if key is None or not key.verifies(parsed.signature, parsed.signing_input):
                return None
            claims = parse_json_object(parsed.payload)
        except (UnicodeEncodeError, CredentialError, EncodingProblem):
            return None
        expires = claims.get("exp")
        is_current = isinstance(expires, int) and self.clock.now() < expires
        is_own = claims.get("type") == "meta" or claims.get("iss") in self.own_issuers
        return claims if is_current and is_own and claims.get("type") in types else None

    def app_token(self, session: Session, person: Person, app: App, *, host: str, expires_in: int | None = None) -> str:
        """Return the application token of a user, with `custom` trimmed, and store its claims."""
        custom = person.custom | ({"groups": self._shaped_groups(person)} if person.groups else {})
        claims = self.user_claims(
            person.email,
            audience=app.tag,
            custom={} if person.email in self.trimmed else custom,
            country=person.country,
            expires_in=app.session if expires_in is None else expires_in,
            hostname=host,
            claims={"identity_nonce": session.id},
        )
        claims = trim_claims(claims, "custom")
        session.tokens[app.tag] = claims
        self._state.save()
        return self.sign(claims)

    def service_app_token(self, client_id: str, app: App, *, host: str) -> str:
        """Return the application token of a service; as on Cloudflare, it lasts a second longer."""
        return self.service_token(client_id, audience=app.tag, expires_in=app.session + 1, hostname=host)

    def global_token(self, session: Session, person: Person) -> str:
        """Return the global session token of a user, with `identity` trimmed."""
        lifetime = int(session.expires - self.clock.now())
        claims = self._minter.org(person.email, expires_in=lifetime)
        claims |= {"identity_nonce": session.id, "identity": self.identity(session, person)}
        return self.sign(trim_claims(claims, "identity"))

    def login_token(self, app: App, *, host: str, target: str, app_session: str) -> str:
        """Return the `meta` token of a login redirect, bound to the browser by its app session."""
        claims = self._minter.meta(app.tag, hostname=host, redirect_url=target)
        return self.sign({**claims, "app_session_hash": sha256_hex(app_session)}, header=self._typed_header)

    def app_metadata(self, app: App, *, host: str) -> str:
        """Return the signed response to `cf-access-metadata-request`."""
        return self.sign(self._minter.match(app.tag, hostname=host), header=self._typed_header)

    def identity(self, session: Session, person: Person) -> Claims:
        """Return the content of get-identity."""
        return {
            **self._minter.identity(person.email),
            **({"name": person.name} if person.name else {}),
            "idp": {"id": self._minter.identity(person.email)["idp"]["id"], "type": person.idp},
            "geo": {"country": person.country},
            "groups": _group_objects(person),
            "oidc_fields": person.custom,
            "devicePosture": person.device_posture,
            "iat": int(session.created),
            "ip": session.ip,
        }

    def _shaped_groups(self, person: Person) -> object:
        if self.group_shape == "text":
            return ",".join(person.groups)
        return _group_objects(person) if self.group_shape == "objects" else list(person.groups)

    def _published_key(self, kid: str) -> RS256Key | None:
        found = next((key for key in self.keys if key.kid == kid), None)
        if found is None:
            return None
        if kid not in self._verification_keys:
            jwk = found.jwk()
            self._verification_keys[kid] = RS256Key(n=jwk["n"], e=jwk["e"])
        return self._verification_keys[kid]

    def _save_keys(self) -> None:
        self._state.keys = [StoredKey(to_pem(key.private), self._issued[key.kid]) for key in self.keys]
        self._state.save()


def trim_claims(claims: Claims, member: str) -> Claims:
    """Remove the last entries of a member until a cookie can hold the claims."""
    available = MAX_PAYLOAD - len(compact_json({**claims, member: {}}))
    fitting: Claims = {}
    for name, value in claims.get(member, {}).items():
        if len(compact_json({**fitting, name: value})) > available:
            break
        fitting[name] = value
    return {**claims, member: fitting} if fitting else {name: value for name, value in claims.items() if name != member}


def _group_objects(person: Person) -> list[Claims]:
    return [{"id": sha256_hex(name)[:32], "name": name} for name in person.groups]


def sha256_hex(text: str) -> str:
    """Return the SHA-256 of a text, in hexadecimal."""
    return sha256(text.encode()).hexdigest()


def random_nonce() -> str:
    """Return a random `identity_nonce` of 16 characters."""
    return secrets.token_hex(8)


def _key_supply(stored: list[SigningKey]) -> Callable[[], SigningKey]:
    """Return a source of the stored keys, then of new ones; an issuer needs two, so one counts twice."""
    remaining = stored * 2 if len(stored) == 1 else stored or _new_keys()
    return lambda: remaining.pop(0) if remaining else SigningKey.generate()


def _new_keys() -> list[SigningKey]:
    """Return two new keys, generated at the same time: one takes a tenth of a second, or several."""
    with ThreadPoolExecutor(2) as pool:
        return [pending.result() for pending in [pool.submit(SigningKey.generate) for _ in range(2)]]
