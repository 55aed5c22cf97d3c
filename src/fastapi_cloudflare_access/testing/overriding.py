"""A caller without a token, for tests of what an app does with a caller."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar, overload

from pydantic import ValidationError

from fastapi_cloudflare_access._verification.request_token import Headers
from fastapi_cloudflare_access._verifier import Outcome, U, Verifier
from fastapi_cloudflare_access.access import CloudflareAccess
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import ConfigurationError, MissingToken
from fastapi_cloudflare_access.testing._replacing import authenticator_of, replaced
from fastapi_cloudflare_access.testing.team import wire_claims

S = TypeVar("S", bound=ServiceClaims | None)


@overload
def override(access: CloudflareAccess[U], caller: UserClaims) -> AbstractContextManager[U]: ...


@overload
def override(access: CloudflareAccess[Any], caller: S) -> AbstractContextManager[S]: ...


@contextmanager
def override(access: CloudflareAccess[Any], caller: Any) -> Generator[Any]:
    """Let every request come from this caller, with or without a token, in the whole process.

    Every dependency of `access` returns the caller, or refuses as it would: the kind is checked, and policies run.
    Nothing is verified and no keys are fetched, not in a lifespan either, so this tests what your app does with a
    caller, not who gets in.

    It holds wherever `access` is asked: HTTP, WebSockets, routers, mounted apps, middleware. It does not hold for the
    objects that `access.with_audience` returned: override each. Contexts nest, and may end in any order.

    Args:
        access: The object that the routes depend on.
        caller: What `team.user(…)` or `team.service(…)` returns, or None for requests without a token.

    Yields:
        The caller as handlers get it: of the model that `access` was given.

    Raises:
        ConfigurationError: One of the two is something else.
    """
    _check(access, caller)
    given = _of_the_model(access, caller)
    authenticator = authenticator_of(access)
    with replaced(authenticator, "verifier", _FixedCaller(authenticator.verifier, given)):
        yield given


class _FixedCaller(Verifier[Any]):
    """A verifier that returns one caller for every request."""

    def __init__(self, real: Verifier[Any], caller: Any) -> None:
        super().__init__(real.settings, keys=real.keys, user_model=real.user_model)
        self._caller = caller

    async def start(self) -> None:
        """Fetch nothing."""

    async def stop(self) -> None:
        """Leave the keys as they are."""

    def authenticate_at_once(self, headers: Headers) -> Outcome[Any]:  # noqa: ARG002 - whatever the request carries
        """Return the caller."""
        return self._caller

    async def verify(self, token: bytes) -> Any:  # noqa: ARG002 - the same
        """Return the caller.

        Raises:
            MissingToken: There is none.
        """
        if self._caller is None:
            raise MissingToken("there is no token")
        return self._caller


def _check(access: object, caller: object) -> None:
    if not isinstance(access, CloudflareAccess):
        raise ConfigurationError(f"override takes the CloudflareAccess object of your app, not {type(access).__name__}")
    if not isinstance(caller, UserClaims | ServiceClaims | None):
        kinds = "team.user(…), which gives UserClaims, team.service(…), which gives ServiceClaims, or None for nobody"
        raise ConfigurationError(f"a caller is {kinds}, not {type(caller).__name__}")


def _of_the_model(access: CloudflareAccess[Any], caller: Any) -> Any:
    model: type[UserClaims] = access.user_model
    if not isinstance(caller, UserClaims) or isinstance(caller, model):
        return caller
    try:
        return model.model_validate(wire_claims(caller))
    except ValidationError as invalid:
        names = ", ".join(".".join(map(str, error["loc"])) for error in invalid.errors())
        raise ConfigurationError(f"the caller does not fit {model.__name__}: see {names}") from None
