"""`AnyAccess`, which is several access objects as one: for several teams, or several applications."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, Generic, cast

from starlette.responses import Response

from fastapi_cloudflare_access._access_base import AccessBase
from fastapi_cloudflare_access._not_a_dependency import NotADependency
from fastapi_cloudflare_access._requests.choosing import ChoosingAuthenticator
from fastapi_cloudflare_access._verifier import U
from fastapi_cloudflare_access.errors import ConfigurationError

_CLASS = NotADependency("AnyAccess is a class: write Depends(either), where either = first | second")


class AnyAccess(AccessBase[U], Generic[U]):
    """Admits callers of several `CloudflareAccess` objects: `either = first | second`.

    The unverified `iss` and `aud` of a token only choose the object. The chosen one verifies the whole token, by its
    own settings. If they fit several objects, the first is chosen.

    Attributes:
        user: The dependency that returns `UserClaims`; a service gets 403.
        service: The dependency that returns `ServiceClaims`; a user gets 403.
        optional: The dependency that returns the claims, or None without a token or with a rejected cookie.
        identity: The dependency that returns the `Identity` of a user, from get-identity; a service gets 403.
        members: The objects.
    """

    members: tuple[AccessBase[Any], ...]

    def __init__(self, *accesses: Annotated[AccessBase[Any], _CLASS]) -> None:
        """Combine the objects; `first | second` does the same.

        Raises:
            ConfigurationError: There are fewer than two, one is something else, or they differ in `token_sources` or
                `auth_scheme`.
        """
        for access in cast("tuple[object, ...]", accesses):
            if not isinstance(access, AccessBase):
                raise ConfigurationError("| combines access objects: write first | second, and use .user of the result")
        members = [member for access in accesses for member in getattr(access, "members", (access,))]
        self.members = tuple(dict.fromkeys(members))
        if len(self.members) < 2:  # noqa: PLR2004 - fewer are no choice
            raise ConfigurationError("| combines two different access objects: give the second one its own settings")
        authenticators = [member._authenticator for member in self.members]  # noqa: SLF001 - of this class
        for name in ("token_sources", "auth_scheme"):
            if len({getattr(each.verifier.settings, name) for each in authenticators}) > 1:
                raise ConfigurationError(f"access objects that are combined must have the same {name}")
        authenticator = ChoosingAuthenticator(authenticators)
        self._begin(authenticator)
        self._add_dependencies(authenticator)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.members))

    def __or__(self, other: AccessBase[Any]) -> "AnyAccess[Any]":
        """Return an object that admits callers of the other one too.

        Raises:
            ConfigurationError: The other is not an access object, or differs in `token_sources` or `auth_scheme`.
        """
        return AnyAccess(self, other)

    @asynccontextmanager
    async def _running(self) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for member in self.members:
                await stack.enter_async_context(member)
            yield

    async def _readiness(self) -> Response:
        answers = [await member.readiness() for member in self.members]
        return max(answers, key=lambda answer: answer.status_code)
