"""A team to test with: keys of its own, tokens and certs as Cloudflare Access has them."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from hashlib import sha256
from itertools import count
from threading import Lock
from typing import Any, Generic, Unpack, overload

from pydantic import ValidationError
from typing_extensions import TypeVar

from fastapi_cloudflare_access._clock import is_clock
from fastapi_cloudflare_access._verification.request_token import COOKIE, HEADER
from fastapi_cloudflare_access.access import CloudflareAccess
from fastapi_cloudflare_access.claims import Claims, ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.protocols import Clock
from fastapi_cloudflare_access.settings import Settings
from fastapi_cloudflare_access.testing._forging import Base
from fastapi_cloudflare_access.testing._issuer import Issuer, SigningKey
from fastapi_cloudflare_access.testing._minting import ServiceOptions, UserOptions
from fastapi_cloudflare_access.testing.clock import FakeClock
from fastapi_cloudflare_access.testing.fetch import MemoryFetch
from fastapi_cloudflare_access.testing.forgeries import FORGERIES
from fastapi_cloudflare_access.testing.patching import patched

K = TypeVar("K", bound=Clock, default=FakeClock)
M = TypeVar("M", UserClaims, ServiceClaims)

_pool: dict[tuple[str, int], SigningKey] = {}
_pool_lock = Lock()


class FakeTeam(Issuer, Generic[K]):
    """A team of your own, for tests.

    Keys are made once per process for each team name and shared, so that a new team costs nothing; ids, claims and
    times are the same in every run.
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
        """Name the team as `CloudflareAccess` would.

        Args:
            team_domain: A team name, a team domain, or a loopback origin.
            audience: Its AUD tags; by default one that follows from the name.
            clock: What tokens are dated by; by default a new `FakeClock`, which stands still.

        Raises:
            ConfigurationError: The team domain, an audience or the clock is not one.
        """
        clock = FakeClock() if clock is None else clock
        if not is_clock(clock):
            raise ConfigurationError("a clock is an object with now(), monotonic() and sleep(), such as SystemClock()")
        settings = Settings.load(team_domain=team_domain, audience=_tags(team_domain, audience))
        super().__init__(
            settings.issuer,
            name=team_domain,
            audiences=settings.audience,
            clock=clock,
            new_key=_shared_keys(team_domain),
        )

    @property
    def team_domain(self) -> str:
        """What to give `CloudflareAccess` as its `team_domain`."""
        return self.issuer

    def patch(self, *accesses: CloudflareAccess[Any]) -> AbstractContextManager[MemoryFetch]:
        """Take Cloudflare's place for an app: its own access object verifies this team's tokens, and only those.

        Within the context the team issues for the issuer and the audiences of the objects, their keys come from it, and
        its clock is theirs; then all is as it was. Nothing of the verification is left out.

        ```python
        with team.patch(access) as certs, TestClient(app) as client:
            certs.fail_with(503)
            assert client.get("/me", headers=team.headers(team.user("ada@example.com"))).status_code == 200
        ```

        Args:
            *accesses: The app's object, and those it was given by `with_audience`.

        Returns:
            A context that gives the certs endpoint, to count fetches and to script faults.

        Raises:
            ConfigurationError: They are no such objects, or of several teams.
        """
        return patched(self, accesses)

    def user(self, email: str, **options: Unpack[UserOptions]) -> UserClaims:
        """The claims of a user, as a handler gets them; the options are those of `user_token`.

        Raises:
            ConfigurationError: No user has such claims.
        """
        return _caller(UserClaims, self.user_claims(email, **options))

    def service(self, name: str, **options: Unpack[ServiceOptions]) -> ServiceClaims:
        """The claims of a service, as a handler gets them; the options are those of `service_token`.

        Raises:
            ConfigurationError: No service has such claims.
        """
        return _caller(ServiceClaims, self.service_claims(name, **options))

    def forge(self, name: str, email: str = "ada@example.com") -> str:
        """A broken token of this user; [`FORGERIES`][fastapi_cloudflare_access.testing.FORGERIES] lists the names.

        Raises:
            ConfigurationError: There is no forgery of that name.
        """
        if name not in [*FORGERIES]:  # also what cannot be hashed is none of them
            raise ConfigurationError(f"there is no forgery {name!r}; there are {', '.join(FORGERIES)}")
        return FORGERIES[name].make(Base(self, self.user_claims(email), shared_key("not a team", 0)))

    def headers(self, caller: Claims | str) -> dict[str, str]:
        """The request headers that Access adds for this caller, or for this token."""
        return {HEADER: self.token(caller)}

    def cookies(self, caller: Claims | str) -> dict[str, str]:
        """The cookie that a browser brings for this caller, or for this token."""
        return {COOKIE: self.token(caller)}

    def token(self, caller: object) -> str:
        """A token that says what these claims say; a token stays what it is.

        Raises:
            ConfigurationError: It is neither claims nor a token.
        """
        if isinstance(caller, str):
            return caller
        if not isinstance(caller, UserClaims | ServiceClaims):
            raise ConfigurationError(
                f"a caller is team.user(…), team.service(…) or a token, not {type(caller).__name__}"
            )
        claims = wire_claims(caller)
        if isinstance(caller, UserClaims):
            return self.sign(claims)
        return self.sign({**claims, "aud": caller.aud[0]}, header=self._typed_header)


def wire_claims(caller: UserClaims | ServiceClaims) -> dict[str, Any]:
    """Return the claims as a token has them, those included that are never serialised."""
    claims = caller.model_dump(mode="json", exclude_unset=True, by_alias=True)
    hidden = {name: getattr(caller, name) for name, field in type(caller).model_fields.items() if field.exclude}
    return claims | {name: value for name, value in hidden.items() if name in caller.model_fields_set}


def _tags(team_domain: object, audience: Any) -> Any:
    if audience is None:
        return sha256(f"{team_domain}/app".encode()).hexdigest()
    is_several = hasattr(audience, "__iter__") and not isinstance(audience, str)
    return list(audience) if is_several else audience


def _caller(model: type[M], claims: Mapping[str, Any]) -> M:
    aud = claims["aud"]
    try:
        return model.model_validate({**claims, "aud": (aud,) if isinstance(aud, str) else aud})
    except ValidationError as invalid:
        names = ", ".join(sorted({str(error["loc"][0]) for error in invalid.errors()}))
        raise ConfigurationError(
            f"no handler gets such a caller: see {names}; user_token, service_token and forge make broken tokens"
        ) from None


def shared_key(name: str, number: int) -> SigningKey:
    """The one key of this name and number in this process."""
    with _pool_lock:
        if (name, number) not in _pool:
            _pool[name, number] = SigningKey.generate()
        return _pool[name, number]


def _shared_keys(name: str) -> Callable[[], SigningKey]:
    numbers = count()
    return lambda: shared_key(name, next(numbers))
