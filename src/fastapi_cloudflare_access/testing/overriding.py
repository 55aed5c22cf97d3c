"""A caller without a token: what FastAPI's own dependency overrides can do, and no more."""

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar, overload

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.requests import HTTPConnection

from fastapi_cloudflare_access._key_source import KeySource
from fastapi_cloudflare_access._verifier import U
from fastapi_cloudflare_access.access import CloudflareAccess
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.testing._replacing import replaced

S = TypeVar("S", bound=ServiceClaims | None)


@overload
def override(app: FastAPI, access: CloudflareAccess[U], caller: UserClaims) -> AbstractContextManager[U]: ...


@overload
def override(app: FastAPI, access: CloudflareAccess[Any], caller: S) -> AbstractContextManager[S]: ...


@contextmanager
def override(app: FastAPI, access: CloudflareAccess[Any], caller: Any) -> Generator[Any]:
    """Let every request to the app come from this caller, with or without a token.

    Every dependency of `access` gives the caller, or refuses as it would: the kind is checked, and policies run.
    Nothing is verified and no keys are fetched, not in the app's lifespan either, so this tests what your app does with
    a caller, not who gets in.

    It holds for HTTP, WebSockets and the routers that the app includes. It does not reach a mounted app, which asks for
    a token as before, nor the objects that `access.with_audience` gave: override each. Nor does it reach mounted
    routers and middleware, whatever is overridden: there send `team.headers(…)` under `team.serve(access)`.

    Args:
        app: The app, or a mounted one.
        access: The object that its routes depend on.
        caller: What `team.user(…)` or `team.service(…)` gives, or None for nobody.

    Yields:
        The caller as handlers get it: of the model that `access` was given.

    Raises:
        ConfigurationError: One of the three is something else.
    """
    _check(app, access, caller)
    given = _of_the_model(access, caller)
    stand_in = _StandIn(given)
    stand_in.replaces(app, access)
    with replaced(access.keys, _without_keys(access.keys)):
        try:
            yield given
        finally:
            stand_in.gives_way(app, access)


class _StandIn:
    """Takes the place of `access.optional`, and gives it back to whom it belongs then, whoever has ended before."""

    def __init__(self, caller: UserClaims | ServiceClaims | None) -> None:
        self._caller = caller
        self.has_ended = False
        self._replaced: dict[Callable[..., Any], Any] = {}

    async def __call__(self, connection: HTTPConnection) -> Any:
        if self._caller is not None:
            connection.state.access = self._caller
        return self._caller

    def replaces(self, app: FastAPI, access: CloudflareAccess[Any]) -> None:
        overrides, nodes = app.dependency_overrides, (access, access.optional)
        self._replaced = {node: overrides.pop(node) for node in nodes if node in overrides}
        overrides[access.optional] = self

    def gives_way(self, app: FastAPI, access: CloudflareAccess[Any]) -> None:
        self.has_ended, overrides = True, app.dependency_overrides
        stand_in: Any = overrides.get(access.optional)
        if stand_in is self:
            del overrides[access.optional]
            overrides.update(self.still_replaced(access))

    def still_replaced(self, access: CloudflareAccess[Any]) -> dict[Callable[..., Any], Any]:
        """Give what it replaced and what is not over."""
        below: Any = self._replaced.get(access.optional)
        if not isinstance(below, _StandIn) or not below.has_ended:
            return self._replaced
        mine = {node: own for node, own in self._replaced.items() if own is not below}
        return {**below.still_replaced(access), **mine}


def _without_keys(keys: KeySource) -> dict[str, Callable[[], Awaitable[None]]]:
    """Let a lifespan come and go without keys, and end one that had begun before."""
    stop, begun = keys.stop, [0]

    async def do_not_start() -> None:
        begun[0] += 1

    async def stop_what_was_started() -> None:
        if begun[0]:
            begun[0] -= 1
        else:
            await stop()

    return {"start": do_not_start, "stop": stop_what_was_started}


def _check(app: object, access: object, caller: object) -> None:
    if not isinstance(app, FastAPI):
        raise ConfigurationError(f"override takes a FastAPI app, not {type(app).__name__}")
    if not isinstance(access, CloudflareAccess):
        raise ConfigurationError(f"override takes the CloudflareAccess object of your app, not {type(access).__name__}")
    if not isinstance(caller, UserClaims | ServiceClaims | None):
        kinds = "team.user(…), which gives UserClaims, team.service(…), which gives ServiceClaims, or None for nobody"
        raise ConfigurationError(f"a caller is {kinds}, not {type(caller).__name__}")


def _of_the_model(access: CloudflareAccess[Any], caller: Any) -> Any:
    model: type[UserClaims] = access.user_claims
    if not isinstance(caller, UserClaims) or isinstance(caller, model):
        return caller
    try:
        return model.model_validate(caller.model_dump(exclude_unset=True, by_alias=True))
    except ValidationError as invalid:
        names = ", ".join(".".join(map(str, error["loc"])) for error in invalid.errors())
        raise ConfigurationError(f"the caller does not fit {model.__name__}: see {names}") from None
