"""A caller without a token: what FastAPI's own dependency overrides can do, and no more."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.requests import HTTPConnection

from fastapi_cloudflare_access.access import CloudflareAccess
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import ConfigurationError

C = TypeVar("C", bound=UserClaims | ServiceClaims | None)


@contextmanager
def override(app: FastAPI, access: CloudflareAccess[Any], caller: C) -> Generator[C]:
    """Let every request to the app come from this caller, with or without a token.

    Every dependency of `access` gives the caller, or refuses as it would: the kind is checked, and policies run.
    Nothing is verified, so this tests what your app does with a caller, not who gets in. It holds for HTTP, WebSockets
    and routers; not for mounted apps (override each) and not for middleware: there send `team.headers(…)` under
    `team.serve(access)`.

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
    given: C = _of_the_model(access, caller)

    async def stand_in(connection: HTTPConnection) -> C:
        if given is not None:
            connection.state.access = given
        return given

    overrides = app.dependency_overrides
    replaced: dict[Callable[..., Any], Any] = {
        node: overrides.pop(node) for node in (access, access.optional) if node in overrides
    }
    overrides[access.optional] = stand_in
    try:
        yield given
    finally:
        del overrides[access.optional]
        overrides.update(replaced)


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
        return model.model_validate(caller.model_dump(exclude_unset=True))
    except ValidationError as invalid:
        names = ", ".join(".".join(map(str, error["loc"])) for error in invalid.errors())
        raise ConfigurationError(f"the caller does not fit {model.__name__}: see {names}") from None
