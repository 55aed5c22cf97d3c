"""Override of the caller without a token, for tests of how an app handles a caller."""

from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar, overload

from pydantic import ValidationError

from fastapi_cloudflare_access._access_base import AccessBase
from fastapi_cloudflare_access._verification.request_token import Headers
from fastapi_cloudflare_access._verifier import Outcome, U, Verifier
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import AccessError, ConfigurationError, IdentityUnavailable, MissingToken
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.testing._memory_revocations import MemoryRevocations
from fastapi_cloudflare_access.testing._replacing import authenticators_of, replaced
from fastapi_cloudflare_access.testing.team import wire_claims

S = TypeVar("S", bound=ServiceClaims | None)


@overload
def override(
    access: AccessBase[U], caller: UserClaims, *, identity: Identity | None = None
) -> AbstractContextManager[U]: ...


@overload
def override(access: AccessBase[Any], caller: S) -> AbstractContextManager[S]: ...


@contextmanager
def override(access: AccessBase[Any], caller: Any, *, identity: Identity | None = None) -> Generator[Any]:
    """Replace the caller of every request in the process, with or without a token.

    Every dependency of `access` returns or rejects this caller: it still checks the type and runs the policies. Nothing
    is verified and no keys are fetched, so a test with an override does not test authentication.

    The override applies to HTTP, WebSockets, routers, mounted apps and middleware. It does not apply to copies made by
    `access.with_audience`: override each. Contexts nest, and may end in any order.

    Args:
        access: The object that the routes depend on.
        caller: The result of `team.user(…)` or `team.service(…)`, or None for requests without a token.
        identity: The identity of the user; by default one with the user's id and address alone, so without groups.

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
    authenticators = authenticators_of(access)
    callers = [_as_user_model(each.verifier.user_model, caller) for each in authenticators]
    with ExitStack() as stack:
        for authenticator, given in zip(authenticators, callers, strict=True):
            fixed = _FixedCaller(authenticator.verifier, given, _identity_of(given, identity))
            stack.enter_context(replaced(authenticator, "verifier", fixed))
        yield callers[0]


class _FixedCaller(Verifier[Any]):
    """A verifier that returns one caller for every request."""

    reads_tokens = False

    def __init__(self, real: Verifier[Any], caller: Any, identity: Identity | None) -> None:
        """Copy what `access` reads; without a token cache, which the key source would keep a reference to."""
        self.settings, self.keys, self.user_model = real.settings, real.keys, real.user_model
        self.identities, self.rechecks, self.signature_checks = real.identities, False, 0
        self.revocations = real.revocations and MemoryRevocations(real.settings, real.keys.clock, ())
        self._caller, self._identity = caller, identity

    async def start(self) -> None:
        """Return without fetching keys."""

    async def stop(self) -> None:
        """Return without stopping the refresh of the keys."""

    def authenticate_at_once(self, headers: Headers) -> Outcome[Any]:  # noqa: ARG002 - the caller is fixed
        """Return the caller."""
        return self._caller

    async def identity(self, headers: Headers, user: UserClaims) -> Identity | AccessError:  # noqa: ARG002 - fixed
        """Return the identity of the caller."""
        return self._identity or IdentityUnavailable("the caller has no identity")

    def is_revoked(self, caller: Any) -> bool:  # noqa: ARG002 - nothing is verified, so nothing is revoked
        """Return False."""
        return False

    def end_of(self, caller: Any) -> float:  # noqa: ARG002 - nothing is verified, so nothing expires
        """Return infinity."""
        return float("inf")

    async def verify(self, token: bytes) -> Any:  # noqa: ARG002 - the caller is fixed
        """Return the caller.

        Raises:
            MissingToken: The caller is None.
        """
        if self._caller is None:
            raise MissingToken("there is no token")
        return self._caller


def _identity_of(caller: Any, identity: Any) -> Identity | None:
    """Return the identity of a user: the given one, or one with nothing but the id and the address."""
    if identity is None and isinstance(caller, UserClaims):
        return Identity(user_uuid=caller.sub, email=caller.email)
    if identity is None or (
        isinstance(identity, Identity) and isinstance(caller, UserClaims) and identity.user_uuid == caller.sub
    ):
        return identity
    raise ConfigurationError("identity must be an Identity of the user: write Identity(user_uuid=user.sub, …)")


def _as_user_model(model: type[UserClaims], caller: Any) -> Any:
    if not isinstance(caller, UserClaims) or isinstance(caller, model):
        return caller
    try:
        return model.model_validate(wire_claims(caller))
    except ValidationError as invalid:
        names = ", ".join(".".join(map(str, error["loc"])) for error in invalid.errors())
        raise ConfigurationError(f"the caller is not a valid {model.__name__}: see {names}") from None
