"""A fake team with its own keys, and with tokens and certs like those of Cloudflare Access."""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from hashlib import sha256
from itertools import count
from threading import Lock
from typing import Any, Generic, Unpack, cast, overload

from pydantic import ValidationError
from typing_extensions import TypeVar

from fastapi_cloudflare_access._logging import log
from fastapi_cloudflare_access._verification.request_token import COOKIE, HEADER
from fastapi_cloudflare_access.access import CloudflareAccess
from fastapi_cloudflare_access.claims import Claims, ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.protocols import Clock
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing._forging import ForgeryBase
from fastapi_cloudflare_access.testing._issuer import Issuer, SigningKey
from fastapi_cloudflare_access.testing._minting import ServiceOptions, UserOptions
from fastapi_cloudflare_access.testing.clock import FakeClock
from fastapi_cloudflare_access.testing.fetch import MemoryFetch
from fastapi_cloudflare_access.testing.forgeries import FORGERIES
from fastapi_cloudflare_access.testing.patching import patched

K = TypeVar("K", bound=Clock, default=FakeClock)
M = TypeVar("M", UserClaims, ServiceClaims)

logger = logging.getLogger("fastapi_cloudflare_access")

_TOO_EARLY = (
    "the FakeTeam made callers or tokens before patch(), which the app rejects as wrong_audience: "
    "make them inside of the context"
)

_pool: dict[tuple[str, int], SigningKey] = {}
_pool_lock = Lock()


class FakeTeam(Issuer, Generic[K]):
    """A fake team for tests.

    Teams of one name share their keys within a process, so a new team is cheap. Ids, claims and times are the same in
    every run.
    """

    clock: K

    @overload
    def __init__(
        self: "FakeTeam[FakeClock]", team_domain: str = "acme", *, audience: str | Iterable[str] | None = None
    ) -> None: ...

    @overload
    def __init__(self, team_domain: str = "acme", *, audience: str | Iterable[str] | None = None, clock: K) -> None: ...

    def __init__(
        self,
        team_domain: str = "acme",
        *,
        audience: str | Iterable[str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Create a team with the same names as for `CloudflareAccess`.

        Args:
            team_domain: A team name, a team domain, or a loopback origin.
            audience: The AUD tags of the team; by default one tag derived from the name.
            clock: The source of the times in tokens; by default a new `FakeClock`.

        Raises:
            ConfigurationError: The team domain or an audience is not valid.
        """
        clock = FakeClock() if clock is None else clock
        self._made_for: set[str] = set()
        settings = Settings.load(team_domain=team_domain, audience=_audience_tags(team_domain, audience))
        super().__init__(
            settings.issuer,
            name=team_domain,
            audiences=settings.audience,
            clock=clock,
            new_key=_shared_keys(team_domain),
        )

    @property
    def team_domain(self) -> str:
        """The `team_domain` for `CloudflareAccess`."""
        return self.issuer

    def patch(self, *accesses: CloudflareAccess[Any]) -> AbstractContextManager[MemoryFetch]:
        """Replace Cloudflare for an app: its own access object verifies this team's tokens only.

        Inside the context the team takes the issuer and the audiences of the objects. The objects take the keys and the
        clock of the team. The verification is complete. Afterwards everything is restored.

        Args:
            *accesses: The app's object, and its copies made by `with_audience`.

        Returns:
            A context of the certs endpoint, which counts fetches and scripts faults.

        Raises:
            ConfigurationError: There is no object, or the objects have several teams.

        Examples:
            ```python
            from fastapi.testclient import TestClient
            from quickstart_app import access, app  # the app of the README

            from fastapi_cloudflare_access.testing import FakeTeam

            team = FakeTeam()
            with team.patch(access) as certs, TestClient(app) as client:
                ada = team.user("ada@example.com")
                assert client.get("/me", headers=team.headers(ada)).status_code == 200
                certs.fail_with(503)  # the app keeps its keys
                assert client.get("/me", headers=team.headers(ada)).status_code == 200
            ```
        """
        configured = {
            tag
            for access in accesses
            if isinstance(cast("object", access), CloudflareAccess)
            for tag in access.settings.audience
        }
        if self._made_for and self._made_for.isdisjoint(configured):
            log(logger, logging.WARNING, "%s", _TOO_EARLY)
        return patched(self, accesses)

    def _valid_audience(self, audience: str | None) -> str:
        tag = super()._valid_audience(audience)
        self._made_for.add(tag)
        return tag

    def user(self, email: str, **options: Unpack[UserOptions]) -> UserClaims:
        """Return the claims of a user as a handler receives them; the options are those of `user_token`.

        Raises:
            ConfigurationError: The claims are not valid for a user.
        """
        return _caller(UserClaims, self.user_claims(email, **options))

    def service(self, name: str, **options: Unpack[ServiceOptions]) -> ServiceClaims:
        """Return the claims of a service as a handler receives them; the options are those of `service_token`.

        Raises:
            ConfigurationError: The claims are not valid for a service.
        """
        return _caller(ServiceClaims, self.service_claims(name, **options))

    def forge(self, name: str, email: str = "ada@example.com") -> str:
        """Return an invalid token of this user; [`FORGERIES`][fastapi_cloudflare_access.testing.FORGERIES] lists all.

        Raises:
            ConfigurationError: The forgery is unknown.
        """
        if name not in FORGERIES:
            raise ConfigurationError(f"unknown forgery {name!r}; the forgeries are {', '.join(FORGERIES)}")
        return FORGERIES[name].make(ForgeryBase(self, self.user_claims(email), shared_key("not a team", 0)))

    def headers(self, caller: Claims | str) -> dict[str, str]:
        """Return the request headers that Access adds for this caller or token."""
        return {HEADER: self.token(caller)}

    def cookies(self, caller: Claims | str) -> dict[str, str]:
        """Return the cookie that a browser sends for this caller or token."""
        return {COOKIE: self.token(caller)}

    def token(self, caller: Claims | str) -> str:
        """Return a token with these claims; a token is returned unchanged.

        Raises:
            ConfigurationError: It is neither claims nor a token.
        """
        if isinstance(caller, str):
            if "@" in caller:
                raise ConfigurationError(f"{caller!r} is an address, not a token: write team.user({caller!r}) for it")
            return caller
        if not isinstance(cast("object", caller), UserClaims | ServiceClaims):
            kind = type(caller).__name__
            raise ConfigurationError(f"a caller is team.user(…), team.service(…) or a token, not {kind}: write one")
        claims = wire_claims(caller)
        if isinstance(caller, UserClaims):
            return self.sign(claims)
        return self.sign({**claims, "aud": caller.aud[0]}, header=self._typed_header)


def wire_claims(caller: UserClaims | ServiceClaims) -> dict[str, Any]:
    """Return the claims as in a token, including those that the model never serialises."""
    claims = caller.model_dump(mode="json", exclude_unset=True, by_alias=True)
    hidden = {name: getattr(caller, name) for name, field in type(caller).model_fields.items() if field.exclude}
    return claims | {name: value for name, value in hidden.items() if name in caller.model_fields_set}


def _audience_tags(team_domain: str, audience: str | Iterable[str] | None) -> str | list[str]:
    if audience is None:
        return sha256(f"{team_domain}/app".encode()).hexdigest()
    return audience if isinstance(audience, str) else list(audience)


def _caller(model: type[M], claims: Mapping[str, Any]) -> M:
    aud = claims["aud"]
    try:
        return model.model_validate({**claims, "aud": (aud,) if isinstance(aud, str) else aud})
    except ValidationError as invalid:
        names = ", ".join(sorted({str(error["loc"][0]) for error in invalid.errors()}))
        raise ConfigurationError(
            f"the claims are not valid: see {names}; user_token, service_token and forge return invalid tokens"
        ) from None


def shared_key(name: str, number: int) -> SigningKey:
    """Return the key of this name and number; each is generated once per process."""
    with _pool_lock:
        if (name, number) not in _pool:
            _pool[name, number] = SigningKey.generate()
        return _pool[name, number]


def _shared_keys(name: str) -> Callable[[], SigningKey]:
    numbers = count()
    return lambda: shared_key(name, next(numbers))
