"""Override of the caller without a token, for tests of how an app handles a caller."""

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
    """Replace the caller of every request in the process, with or without a token.

    Every dependency of `access` returns or rejects this caller: it still checks the type and runs the policies. Nothing
    is verified and no keys are fetched, so a test with an override does not test authentication.

    The override applies to HTTP, WebSockets, routers, mounted apps and middleware. It does not apply to copies made by
    `access.with_audience`: override each. Contexts nest, and may end in any order.

    Args:
        access: The object that the routes depend on.
        caller: The result of `team.user(…)` or `team.service(…)`, or None for requests without a token.

    Yields:
        The caller as handlers receive it, an instance of the app's `user_model`.

    Raises:
        ConfigurationError: The caller is of another type, or is not valid for the app's `user_model`.

    Examples:
        ```python
        from fastapi.testclient import TestClient
        from quickstart_app import access, app  # the app of the README

        from fastapi_cloudflare_access.testing import FakeTeam, override

        with override(access, FakeTeam().user("ada@example.com")):
            assert TestClient(app).get("/me").json()["email"] == "ada@example.com"
        ```
    """
    if not isinstance(caller, UserClaims | ServiceClaims | None):  # every route would answer 403
        raise ConfigurationError(f"a caller must be team.user(…), team.service(…) or None, not {type(caller).__name__}")
    given = _as_user_model(access, caller)
    authenticator = authenticator_of(access)
    with replaced(authenticator, "verifier", _FixedCaller(authenticator.verifier, given)):
        yield given


class _FixedCaller(Verifier[Any]):
    """A verifier that returns one caller for every request."""

    def __init__(self, real: Verifier[Any], caller: Any) -> None:
        """Copy what `access` reads; without a token cache, which the key source would keep a reference to."""
        self.settings, self.keys, self.user_model = real.settings, real.keys, real.user_model
        self._caller = caller

    async def start(self) -> None:
        """Return without fetching keys."""

    async def stop(self) -> None:
        """Return without stopping the refresh of the keys."""

    def authenticate_at_once(self, headers: Headers) -> Outcome[Any]:  # noqa: ARG002 - the caller is fixed
        """Return the caller."""
        return self._caller

    async def verify(self, token: bytes) -> Any:  # noqa: ARG002 - the caller is fixed
        """Return the caller.

        Raises:
            MissingToken: The caller is None.
        """
        if self._caller is None:
            raise MissingToken("there is no token")
        return self._caller


def _as_user_model(access: CloudflareAccess[Any], caller: Any) -> Any:
    model: type[UserClaims] = access.user_model
    if not isinstance(caller, UserClaims) or isinstance(caller, model):
        return caller
    try:
        return model.model_validate(wire_claims(caller))
    except ValidationError as invalid:
        names = ", ".join(".".join(map(str, error["loc"])) for error in invalid.errors())
        raise ConfigurationError(f"the caller is not a valid {model.__name__}: see {names}") from None
