"""The composition: parse, find the key, verify, give the caller a type."""

from hashlib import sha256
from typing import Any, Generic

from pydantic import ValidationError
from typing_extensions import TypeVar

from fastapi_cloudflare_access._key_source import KeySource
from fastapi_cloudflare_access._settings import Settings
from fastapi_cloudflare_access._signature import RS256Key
from fastapi_cloudflare_access._token import MAX_TOKEN, Parsed, parse, read_claims, screen, verify
from fastapi_cloudflare_access._token_cache import Remembered, TokenCache
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import InvalidClaims, KeysUnavailable

U = TypeVar("U", bound=UserClaims, default=UserClaims)


class Verifier(Generic[U]):
    """Verifies tokens by one set of settings over one key source."""

    __slots__ = ("_cache", "keys", "settings", "user_claims")

    def __init__(self, settings: Settings, *, keys: KeySource, user_claims: type[U]) -> None:
        """Put the parts together; nothing is fetched."""
        self.settings = settings
        self.keys = keys
        self.user_claims = user_claims
        size = settings.token_cache_size
        self._cache = TokenCache[U](size) if size else None

    async def verify(self, token: bytes) -> U | ServiceClaims:
        """Give the caller that this token stands for.

        Awaits only where the key is not known.

        Raises:
            CredentialError: The token is refused.
            CannotDecide: Its key cannot be had right now.
        """
        cache, digest = self._cache, b""
        if cache and len(token) <= MAX_TOKEN:
            digest = sha256(token).digest()
            if known := cache.get(digest):
                kid, key, starts, ends, caller, payload = known
                if self._known_key(kid) is key and starts <= self.keys.clock.now() < ends:
                    return caller or self._again(payload)
                cache.drop(digest)
        parsed = parse(token)
        key = self._known_key(parsed.kid) or await self._find_key(parsed)
        claims = verify(parsed, key=key, settings=self.settings, now=self.keys.clock.now())
        caller = typed(claims, self.user_claims)
        if cache:
            cache.put(digest, self._remember(parsed, key, claims, caller))
        return caller

    def _again(self, payload: bytes) -> U | ServiceClaims:
        """Make a caller anew, of a model of the app, which may not be as frozen as ours are."""
        claims = read_claims(payload, settings=self.settings, now=self.keys.clock.now())
        return typed(claims, self.user_claims)

    def _remember(
        self, parsed: Parsed, key: RS256Key, claims: dict[str, Any], caller: U | ServiceClaims
    ) -> Remembered[U]:
        is_frozen = type(caller) in (UserClaims, ServiceClaims)
        return Remembered(
            kid=parsed.kid,
            key=key,
            starts=max(claims["iat"], claims.get("nbf", 0)) - self.settings.nbf_leeway,
            ends=claims["exp"] + self.settings.exp_leeway,
            caller=caller if is_frozen else None,
            payload=b"" if is_frozen else parsed.payload,
        )

    def _known_key(self, kid: str) -> RS256Key | None:
        try:
            return self.keys.lookup(kid)
        except KeysUnavailable:
            return None

    async def _find_key(self, parsed: Parsed) -> RS256Key:
        screen(parsed, settings=self.settings, now=self.keys.clock.now())
        return await self.keys.find(parsed.kid)


def typed(claims: dict[str, Any], user_claims: type[U]) -> U | ServiceClaims:
    """Give the caller that checked claims stand for, as a user of this model or as a service.

    Raises:
        InvalidClaims: They do not fit the model.
    """
    model = user_claims if claims["sub"] else ServiceClaims
    try:
        caller: U | ServiceClaims = model.__pydantic_validator__.validate_python(claims)
    except ValidationError as invalid:
        names = ", ".join(sorted({str(error["loc"][0]) for error in invalid.errors() if error["loc"]}))
        raise InvalidClaims(f"claims that are missing or not acceptable: {names}") from None
    except Exception as failure:  # noqa: BLE001 - a validator of the application's own model
        raise InvalidClaims(f"the claims model failed with {type(failure).__name__}") from None
    if not isinstance(caller, model):
        raise InvalidClaims("the claims model gave something else than an instance of it")
    return caller
