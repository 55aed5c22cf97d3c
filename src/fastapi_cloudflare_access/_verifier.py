"""The verification of a token, in this order.

1. `find_token`: find the one token of the request, in the header or in the cookies.
2. `parse`: check the size, decode base64url, and read the JOSE header: its `alg` and its `kid`.
3. `KeySource.get_if_usable`: get the key of that `kid`. If it is unknown, `precheck` checks the unverified claims as in
   steps 5 and 6, and `KeySource.get_or_fetch` fetches the keys.
4. `verify`: check the signature with that key.
5. `parse_and_check_claims`: parse the payload as strict JSON.
6. `check_claims`: check `type`, then `iss`, `aud`, `exp`, `iat`, `nbf` and `sub`.
7. `build_claims`: build the model of a user or of a service.

A token in the cache skips steps 2 and 4 to 7. Its key and its times are checked on every hit.

If there is a store of revocations, they are asked after step 7, and on every hit.
"""

import logging
from hashlib import sha256
from typing import Any, Generic, NamedTuple, TypeAlias

from pydantic import ValidationError
from typing_extensions import TypeVar

from fastapi_cloudflare_access._identity.source import IdentitySource
from fastapi_cloudflare_access._logging import log
from fastapi_cloudflare_access._revocations.source import RevocationSource
from fastapi_cloudflare_access._revocations.subjects import attach_keys
from fastapi_cloudflare_access._verification.request_token import Headers, find_token
from fastapi_cloudflare_access._verification.signature import RS256Key
from fastapi_cloudflare_access._verification.token import (
    MAX_TOKEN,
    MAX_UNVERIFIED_PAYLOAD,
    ParsedToken,
    parse,
    parse_and_check_claims,
    precheck,
    shown_tags,
    verify,
)
from fastapi_cloudflare_access._verification.token_cache import CacheEntry, RevocationKeys, TokenCache
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import AccessError, IdentityUnavailable, InvalidClaims
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.keys import KeySource
from fastapi_cloudflare_access.settings import Settings

logger = logging.getLogger("fastapi_cloudflare_access")

U = TypeVar("U", bound=UserClaims, default=UserClaims)

_FROZEN = (UserClaims, ServiceClaims)

Outcome: TypeAlias = U | ServiceClaims | AccessError | None
"""The caller of a request, the error, or None if the request carries no token."""


class AwaitingKey(NamedTuple):
    """A token that cannot be verified before the keys are fetched, since its key is unknown.

    Attributes:
        parsed: The token.
        cache_key: The key of its cache entry, its SHA-256; empty if nothing needs it.
    """

    parsed: ParsedToken
    cache_key: bytes


class Verifier(Generic[U]):
    """Verifies tokens by one set of settings over one key source."""

    __slots__ = (
        "_cache",
        "_has_logged_start",
        "identities",
        "keys",
        "rechecks",
        "revocations",
        "settings",
        "signature_checks",
        "user_model",
    )

    reads_tokens = True
    """Whether the caller depends on the token; the testing kit can fix the caller."""

    signature_checks: int
    """Number of signatures that were checked; it does not change at a hit of the token cache."""

    def __init__(
        self,
        settings: Settings,
        *,
        keys: KeySource,
        user_model: type[U],
        identities: IdentitySource | None = None,
        revocations: RevocationSource | None = None,
    ) -> None:
        """Create a verifier; nothing is fetched.

        Args:
            settings: The settings.
            keys: The key source.
            user_model: The model of a user's claims.
            identities: Asks get-identity; None for code that verifies tokens and nothing else.
            revocations: The revocations; None if there is no store for them.
        """
        self.settings = settings
        self.keys = keys
        self.identities = identities
        self.revocations = revocations
        self.user_model = user_model
        self.signature_checks = 0
        self._has_logged_start = False
        self.rechecks = identities is not None and settings.recheck_session > 0
        size = settings.token_cache_size
        self._cache = TokenCache[U](size) if size else None
        if self._cache:
            keys.on_refresh(self._cache.expire)

    async def start(self) -> None:
        """Fetch the keys and begin to refresh them; read the revocations and begin to follow them."""
        self._log_start()
        await self.keys.start()
        if self.revocations is None:
            return
        try:
            await self.revocations.start()
        except BaseException:
            await self.keys.stop()
            raise

    def _log_start(self) -> None:
        """Log once which tokens are accepted, since a process may have older settings than its environment file."""
        if not self._has_logged_start:
            self._has_logged_start = True
            message = "cf-access accepts tokens of %s for the audience%s %s"
            tags = self.settings.audience
            log(logger, logging.INFO, message, self.settings.issuer, "s" if tags[1:] else "", shown_tags(tags))

    async def stop(self) -> None:
        """Stop what `start` began, after as many calls as of `start`."""
        try:
            if self.revocations is not None:
                await self.revocations.stop()
        finally:
            await self.keys.stop()

    def authenticate_at_once(self, headers: Headers) -> Outcome[U] | AwaitingKey:
        """Return the outcome for a request, or its token if the key is unknown and has to be fetched.

        An error is returned, not raised, since a traceback would hold the token.
        """
        try:
            token = find_token(headers, self.settings.token_sources)
            return None if token is None else self._verify_at_once(token)
        except AccessError as error:
            return _without_traceback(error)

    async def authenticate_after_fetch(self, token: AwaitingKey) -> Outcome[U]:
        """Return the outcome for a request whose key has to be fetched."""
        try:
            return await self._verify_after_fetch(token)
        except AccessError as error:
            return _without_traceback(error)

    async def verify(self, token: bytes) -> U | ServiceClaims:
        """Return the caller that this token identifies.

        Awaits only if the key is unknown.

        Raises:
            CredentialError: The token is not valid.
            TemporarilyUnavailable: Its key cannot be fetched right now.
        """
        caller = self._verify_at_once(token)
        return await self._verify_after_fetch(caller) if isinstance(caller, AwaitingKey) else caller

    async def identity(self, headers: Headers, user: UserClaims) -> Identity | AccessError:
        """Return the identity of the verified user of a request, or why there is none."""
        if self.identities is None:
            return IdentityUnavailable("identities are not asked here")
        try:
            token = find_token(headers, self.settings.token_sources)
        except AccessError as error:  # middleware has changed the headers since the verification
            return _without_traceback(error)
        return await self.identities.identity(token or b"", user)

    async def recheck(self, token: bytes, user: UserClaims) -> AccessError | None:
        """Return None if the session of a verified user is alive, or else the error."""
        return await self.identities.recheck(token, user) if self.identities else None

    def end_of(self, caller: UserClaims | ServiceClaims) -> float:
        """Return the wall time from which the token of a caller is not accepted any more."""
        return caller.exp + self.settings.exp_leeway

    def is_revoked(self, caller: UserClaims | ServiceClaims) -> bool:
        """Check whether a caller that was accepted has been revoked since then."""
        return self.revocations is not None and self.revocations.is_revoked(caller)

    def _verify_at_once(self, token: bytes) -> U | ServiceClaims | AwaitingKey:
        cache, cache_key = self._cache, b""
        if (cache or self.revocations) and len(token) <= MAX_TOKEN:
            cache_key = sha256(token).digest()
            if cache and (entry := cache.get(cache_key)):
                if (
                    self.keys.get_if_usable(entry.kid) is entry.key
                    and entry.starts <= self.keys.clock.now() < entry.ends
                ):
                    if entry.revocation_keys is not None:
                        self._check_revocations(entry.revocation_keys)
                    return entry.caller or self._rebuild(entry)
                cache.drop(cache_key)
        parsed = parse(token)
        key = self.keys.get_if_usable(parsed.kid)
        return self._verify_with(key, parsed, cache_key) if key else AwaitingKey(parsed, cache_key)

    async def _verify_after_fetch(self, token: AwaitingKey) -> U | ServiceClaims:
        parsed, cache_key = token
        if len(parsed.payload) <= MAX_UNVERIFIED_PAYLOAD or self.keys.ready:
            precheck(parsed, settings=self.settings, now=self.keys.clock.now())
        key = await self.keys.get_or_fetch(parsed.kid)
        return self._verify_with(key, parsed, cache_key)

    def _verify_with(self, key: RS256Key, parsed: ParsedToken, cache_key: bytes) -> U | ServiceClaims:
        self.signature_checks += 1
        claims = verify(parsed, key=key, settings=self.settings, now=self.keys.clock.now())
        caller = build_claims(claims, self.user_model, issuer=self.settings.issuer)
        revocation_keys = None if self.revocations is None else self.revocations.keys_of(claims, cache_key)
        if revocation_keys is not None:
            self._check_revocations(revocation_keys)
            if type(caller) not in _FROZEN:
                attach_keys(caller, revocation_keys)
        if self._cache and cache_key:
            self._cache.put(cache_key, self._remember(parsed, key, claims, caller, revocation_keys))
        return caller

    def _check_revocations(self, keys: RevocationKeys) -> None:
        if self.revocations is not None and (error := self.revocations.refusal(keys)):
            raise error

    def _rebuild(self, entry: CacheEntry[U]) -> U | ServiceClaims:
        """Build the caller again from a cached payload: a model of the app may not be frozen."""
        claims = parse_and_check_claims(entry.payload, settings=self.settings, now=self.keys.clock.now())
        caller = build_claims(claims, self.user_model, issuer=self.settings.issuer)
        if entry.revocation_keys is not None:
            attach_keys(caller, entry.revocation_keys)
        return caller

    def _remember(
        self,
        parsed: ParsedToken,
        key: RS256Key,
        claims: dict[str, Any],
        caller: U | ServiceClaims,
        revocation_keys: RevocationKeys | None,
    ) -> CacheEntry[U]:
        settings = self.settings
        starts = max(claims["iat"], claims.get("nbf", 0)) - settings.nbf_leeway
        ends = claims["exp"] + settings.exp_leeway
        if type(caller) in _FROZEN:
            return CacheEntry(parsed.kid, key, starts, ends, caller, b"", revocation_keys)
        return CacheEntry(parsed.kid, key, starts, ends, None, parsed.payload, revocation_keys)


def _without_traceback(error: AccessError) -> AccessError:
    """Remove the traceback and the causes of an error: their frames hold the token."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def build_claims(claims: dict[str, Any], user_model: type[U], *, issuer: str) -> U | ServiceClaims:
    """Return the caller that checked claims identify, as a user of this model or as a service.

    Args:
        claims: The checked claims.
        user_model: The model of a user's claims.
        issuer: The team domain of today, which `principal` has even if `iss` is a former one.

    Raises:
        InvalidClaims: They do not fit the model.
    """
    model = user_model if claims["sub"] else ServiceClaims
    try:
        caller: U | ServiceClaims = model.__pydantic_validator__.validate_python(claims)
    except ValidationError as invalid:
        names = ", ".join(sorted({str(error["loc"][0]) for error in invalid.errors() if error["loc"]}))
        raise InvalidClaims(f"claims are missing or not acceptable: {names}") from None
    except Exception as failure:  # noqa: BLE001 - a validator of the app's model may raise anything
        raise InvalidClaims(f"the claims model failed with {type(failure).__name__}") from None
    if not isinstance(caller, model):
        raise InvalidClaims("the claims model did not return an instance of itself")
    if claims["iss"] != issuer:
        caller._set_current_issuer(issuer)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - made for here
    return caller
