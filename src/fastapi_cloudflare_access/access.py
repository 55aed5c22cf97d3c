"""`CloudflareAccess`, which is the dependency, the key source and the lifespan in one object."""

import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from copy import copy
from typing import Annotated, Any, Generic, Literal, Never, Self, cast

from starlette.responses import Response
from typing_extensions import TypeVar

from fastapi_cloudflare_access._access_base import AccessBase
from fastapi_cloudflare_access._calls import or_write
from fastapi_cloudflare_access._clock import is_clock
from fastapi_cloudflare_access._identity.source import IdentitySource
from fastapi_cloudflare_access._keys.http import default_fetch
from fastapi_cloudflare_access._logging import log
from fastapi_cloudflare_access._not_a_dependency import AbsentAttribute, NotADependency
from fastapi_cloudflare_access._policy import is_async
from fastapi_cloudflare_access._requests import urls
from fastapi_cloudflare_access._requests.authentication import Authenticator
from fastapi_cloudflare_access._requests.responses import readiness
from fastapi_cloudflare_access._revocations.source import RevocationSource
from fastapi_cloudflare_access._verifier import U, Verifier
from fastapi_cloudflare_access.any_access import AnyAccess
from fastapi_cloudflare_access.claims import UserClaims
from fastapi_cloudflare_access.dependencies import Dependency
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.keys import KeySource
from fastapi_cloudflare_access.protocols import Clock, Fetch, Listener, RevocationStore, SnapshotStore
from fastapi_cloudflare_access.revocations import Revocations
from fastapi_cloudflare_access.settings import (
    GROUP_CLAIMS,
    KeySettings,
    Settings,
    TokenSource,
    left_out,
    unknown_setting,
)
from fastapi_cloudflare_access.stores._checks import check_revocation_store, check_snapshot_store

V = TypeVar("V", bound=UserClaims)

_GROUP_CLAIMS: Any = left_out(GROUP_CLAIMS)
_TOKEN_SOURCES: Any = left_out(("header", "cookie"))

logger = logging.getLogger("fastapi_cloudflare_access")

_COPY = NotADependency("Depends(access.with_audience) admits every client: write Depends(access.with_audience(…))")
_LOGIN = NotADependency("Depends(access.login_url) admits every client: write Depends(access)")
_LOGOUT = NotADependency("Depends(access.logout_url) admits every client: write Depends(access)")


class CloudflareAccess(AccessBase[U], Generic[U]):
    """Admits only callers that Cloudflare Access has authenticated.

    The object itself is a dependency: `Depends(access)` returns `UserClaims` or `ServiceClaims`, or raises 401.
    Create it once, where the app is defined.

    Attributes:
        user: The dependency that returns `UserClaims`; a service gets 403.
        service: The dependency that returns `ServiceClaims`; a user gets 403.
        optional: The dependency that returns the claims, or None without a token or with a rejected cookie.
        identity: The dependency that returns the `Identity` of a user, from get-identity; a service gets 403.

    Examples:
        ```python
        from typing import Annotated

        from fastapi import Depends, FastAPI

        from fastapi_cloudflare_access import CloudflareAccess, UserClaims

        access = CloudflareAccess()  # CF_ACCESS_TEAM_DOMAIN and CF_ACCESS_AUDIENCE are set
        app = FastAPI(lifespan=access.lifespan)


        @app.get("/me")
        async def me(user: Annotated[UserClaims, Depends(access.user)]) -> str | None:
            return user.email
        ```
    """

    @or_write("CloudflareAccess takes its settings by name: write CloudflareAccess(team_domain=…, audience=…)")
    def __init__(  # noqa: PLR0913 - every setting is visible in the signature
        self,
        *,
        team_domain: str = left_out(),
        audience: str | Sequence[str] = left_out(),
        former_team_domains: str | Sequence[str] = left_out(()),
        user_model: type[U] = UserClaims,  # type: ignore[assignment]  # pyright: ignore - fits the default of U
        group_claims: Sequence[str] = _GROUP_CLAIMS,
        token_sources: TokenSource | Sequence[TokenSource] = _TOKEN_SOURCES,
        exp_leeway: float = left_out(10.0),
        nbf_leeway: float = left_out(30.0),
        auth_scheme: str = left_out("Cloudflare-Access"),
        token_cache_size: int = left_out(1024),
        recheck_session: float = left_out(0.0),
        recheck_unavailable: Literal["allow", "deny"] | None = left_out(None),
        recheck_grace: float = left_out(0.0),
        revocations_unavailable: Literal["open", "closed"] | None = left_out(None),
        key_settings: KeySettings | None = None,
        fetch: Fetch | None = None,
        clock: Clock | None = None,
        listeners: Sequence[Listener] = (),
        snapshot_store: SnapshotStore | None = None,
        revocation_store: RevocationStore | None = None,
        **unknown: Never,
    ) -> None:
        """Check the settings; nothing is fetched.

        Each setting that is left out is read from `CF_ACCESS_<NAME>`; [`Settings`][fastapi_cloudflare_access.settings]
        describes them.

        Args:
            team_domain: The team: `acme`, `acme.cloudflareaccess.com`, or a loopback origin.
            audience: The AUD tag of the application, or several.
            former_team_domains: Names that the team had before; tokens with these issuers are accepted too.
            user_model: Your own subclass of `UserClaims`, with typed `custom` claims.
            group_claims: Paths of the claims in which policies look for groups.
            token_sources: Where the token is read from: `header`, `cookie` or both.
            exp_leeway: Seconds for which a token is accepted after `exp`.
            nbf_leeway: Seconds by which `nbf` and `iat` may be in the future.
            auth_scheme: The auth-scheme of `WWW-Authenticate`.
            token_cache_size: Number of verified tokens that are kept; 0 for none.
            recheck_session: Seconds after which a user's session is checked again at Cloudflare; never by default.
            recheck_unavailable: What happens to users whose session cannot be checked: `allow` or `deny`.
            recheck_grace: Seconds for which `allow` holds after the check was due.
            revocations_unavailable: What happens while revocations cannot be read: `open` or `closed`.
            key_settings: The numbers of the key source.
            fetch: The function that fetches the keys; by default with httpx.
            clock: The source of time; by default the machine's clocks.
            listeners: Functions that are called with each event, such as `RequestRejected`.
            snapshot_store: The store through which workers share the keys, such as a `RedisStore`.
            revocation_store: The store through which workers share revocations, such as a `RedisStore`.
            **unknown: Not accepted; the error names the closest setting.

        Raises:
            ConfigurationError: A setting is missing or wrong.
        """
        named = Settings.model_fields.keys() - {"key_settings"}
        options = {name: value for name, value in locals().items() if name in named}
        _check_unknown(unknown)
        _check_user_model(user_model)
        _check_ports(fetch, clock, listeners)
        check_snapshot_store(snapshot_store)
        settings = Settings.load(**options, **{} if key_settings is None else {"key_settings": key_settings})
        fetch, listeners = fetch or default_fetch(settings), tuple(listeners)
        keys = KeySource(settings, fetch=fetch, clock=clock, listeners=listeners, snapshot_store=snapshot_store)
        identities = IdentitySource(settings, fetch=fetch, clock=keys.clock, listeners=listeners)
        revocations = _revocations(revocation_store, settings, keys.clock, listeners)
        verifier = Verifier(settings, keys=keys, identities=identities, user_model=user_model, revocations=revocations)
        self._begin(authenticator := Authenticator(verifier, listeners))
        self._add_dependencies(authenticator)
        _announce(self, listeners)

    def __repr__(self) -> str:
        audience = ", ".join(self.settings.audience)
        return f"<{type(self).__name__} team_domain={self.settings.issuer!r} audience={audience!r}>"

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._authenticator.verifier.settings

    @property
    def user_model(self) -> type[U]:
        """The model of a user's claims."""
        return self._authenticator.verifier.user_model

    @property
    def keys(self) -> KeySource:
        """The key source: `health()`, `refresh()`, `seed()` and `export()`."""
        return self._authenticator.verifier.keys

    @property
    def revocations(self) -> Revocations:
        """The revocations: `log_out()`, `block()`, `unblock()`, `revoke()`, `in_force()` and `health()`.

        Raises:
            ConfigurationError: The object has no `revocation_store`.
        """
        if (source := self._authenticator.verifier.revocations) is None:
            raise AbsentAttribute(
                "access.revocations needs revocation_store: write CloudflareAccess(revocation_store=RedisStore(…), "
                "revocations_unavailable='closed')"
            )
        return Revocations(source)

    @property
    def open_streams(self) -> int:
        """The number of WebSockets and streams that `while_valid` or the guard keeps open in this process."""
        return self._authenticator.open_streams.count()

    def __or__(self, other: "AccessBase[V]") -> "AnyAccess[U | V]":
        """Return an object that admits callers of either: of several teams, or of several applications.

        Raises:
            ConfigurationError: The other is not an access object, or differs in `token_sources` or `auth_scheme`.
        """
        return AnyAccess(self, other)

    def with_audience(self, *audience: Annotated[str, _COPY]) -> Self:
        """Return a copy for other applications of the same team; it shares the key source and the revocations.

        The copy has its own dependencies, policies and token cache; other attributes are copied.

        Raises:
            ConfigurationError: An audience is missing or wrong.
        """
        mine = self._authenticator
        settings = self.settings.with_audience(audience)
        verifier = Verifier(
            settings,
            keys=self.keys,
            identities=mine.verifier.identities,
            user_model=self.user_model,
            revocations=mine.verifier.revocations,
        )
        other = copy(self)
        other._begin(Authenticator(verifier, mine.listeners))  # noqa: SLF001 - of this class
        for name, value in vars(self).items():
            if isinstance(value, Dependency) and value.belongs_to(mine):
                setattr(other, name, value.for_authenticator(other._authenticator))  # noqa: SLF001 - the same
            elif name != "_required" and _holds_dependency_of(value, mine):
                raise ConfigurationError(
                    f"with_audience cannot copy the attribute {name}, which holds dependencies for another audience: "
                    "keep each of them in an attribute of its own, and first | second outside of the object"
                )
        _announce(other, mine.listeners)
        return other

    def login_url(self, host: Annotated[str, _LOGIN], *, return_to: str = "/", audience: str | None = None) -> str:
        """Return the URL at which a browser logs in to an app, and then returns to a page of it.

        Args:
            host: The public host of the app, such as `app.example.com`; never the Host header of a request.
            return_to: Path and query of the page; `/` replaces what is not a path of the app.
            audience: The AUD tag of the app, if several are configured.

        Raises:
            ConfigurationError: The host or the audience is wrong.
        """
        return urls.login_url(self.settings, host, return_to=return_to, audience=audience)

    def logout_url(self, *, host: Annotated[str | None, _LOGOUT] = None, return_to: str | None = None) -> str:
        """Return the URL at which a browser logs out of all apps of the team.

        Args:
            host: The public host of the app, so that its cookie is deleted at once; by default the host of the team.
            return_to: The URL of the page to show then, of an app of the team; by default a page of Access.

        Raises:
            ConfigurationError: An argument is wrong.
        """
        return urls.logout_url(self.settings, host=host, return_to=return_to)

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[None]:
        verifier = self._authenticator.verifier
        await verifier.start()
        try:
            yield
        finally:
            await verifier.stop()

    async def _readiness(self) -> Response:
        await self.keys.fetch_if_unusable()
        revocations = self._authenticator.verifier.revocations
        if revocations is not None and revocations.is_read_due:
            await revocations.catch_up()
        return readiness(self.keys.health(), knows_revocations=revocations is None or revocations.is_ready)


def _revocations(
    store: RevocationStore | None, settings: Settings, clock: Clock, listeners: Sequence[Listener]
) -> RevocationSource | None:
    check_revocation_store(store, settings.revocations_unavailable)
    return None if store is None else RevocationSource(store, settings, clock=clock, listeners=listeners)


def _announce(access: CloudflareAccess[Any], listeners: Iterable[Any]) -> None:
    """Log the warnings of a new object, and pass it to the listeners that read its state."""
    for warning in access.settings.warnings:
        log(logger, logging.WARNING, "%s", warning)
    for listener in listeners:
        if hasattr(cast("type[object]", type(listener)), "watch"):
            listener.watch(access)


def _holds_dependency_of(value: Any, authenticator: Authenticator[Any]) -> bool:
    items: Iterable[Any] = (value,)
    if isinstance(value, dict | list | tuple | set | frozenset):
        items = cast("Iterable[Any]", value.values() if isinstance(value, dict) else value)
    return any(isinstance(item, Dependency) and item.depends_on(authenticator) for item in items)


def _check_unknown(names: Iterable[str]) -> None:
    if sentences := [unknown_setting(name, "CloudflareAccess") for name in sorted(names)]:
        raise ConfigurationError("; ".join(sentences))


def _check_user_model(model: Any) -> None:
    if not isinstance(model, type) or not issubclass(model, UserClaims):
        raise ConfigurationError("user_model must be a subclass of UserClaims")
    if model.model_config.get("extra") == "forbid":
        raise ConfigurationError(
            f"user_model {model.__name__} has extra='forbid', which refuses every token: Access adds claims that are "
            "not documented; remove it"
        )


def _check_ports(fetch: Any, clock: Any, listeners: Any) -> None:
    forgotten_call = isinstance(fetch, type) and not hasattr(fetch, "__aenter__")
    if fetch is not None and (not callable(fetch) or is_async(fetch) or forgotten_call):
        raise ConfigurationError("fetch must be a Fetch: a function that returns an async context manager")
    if clock is not None and not is_clock(clock):
        raise ConfigurationError("clock must be a Clock: an object with now(), monotonic() and sleep()")
    functions: list[Any] = [*listeners] if isinstance(listeners, list | tuple) else [None]
    if any(not callable(each) or is_async(each) for each in functions):
        raise ConfigurationError("listeners must be a list of plain functions that take an event")
    if classes := [each.__name__ for each in functions if isinstance(each, type)]:
        raise ConfigurationError(f"listeners contains the class {classes[0]}: write {classes[0]}(…), with parentheses")
    if len({id(each) for each in functions}) < len(functions):
        raise ConfigurationError("listeners contains a listener twice, which would count each event twice: remove one")
