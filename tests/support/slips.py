"""Wrong declarations: each as the source of an app, with the moment at which it is found and what the error says.

A slip is written as an app would write it, and is put into each place where FastAPI reads such a declaration.
"""

import asyncio
import functools
import json
import re
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field, is_dataclass, replace
from types import ModuleType
from typing import Any, Generic, Literal, NamedTuple, TypeAlias
from urllib.parse import urlencode

import fastapi
import pydantic
from fastapi import routing
from typing_extensions import TypeAliasType, TypedDict, TypeVar

from fastapi_cloudflare_access import Claims, CloudflareAccess, ConfigurationError, ServiceClaims, UserClaims
from fastapi_cloudflare_access.policies import Group, ServiceToken  # noqa: F401 # pyright: ignore[reportUnusedImport] - slips name them
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

Protocol: TypeAlias = Literal["http", "websocket"]
Moment: TypeAlias = Literal["at definition", "at start", "refused"]
Broken: TypeAlias = Literal["found", "past"]

INCLUDES_LATE = hasattr(routing, "iter_route_contexts")
"""Whether this FastAPI reads the dependencies of an included router at start, and not when it is included."""
HAS_FRONTEND = hasattr(fastapi.FastAPI, "frontend")

T = TypeVar("T")


# What the slips name


class Mine(UserClaims):
    department: str = ""


class AllOptional(UserClaims):
    iss: str = ""
    aud: tuple[str, ...] = ()
    exp: int = 0
    iat: int = 0
    sub: str = "x"


class Typed(UserClaims, Generic[T]):
    more: T | None = None


class Deferred(UserClaims):
    model_config = pydantic.ConfigDict(defer_build=True)


class Rebuilt(UserClaims):
    department: str = ""


Rebuilt.model_rebuild(force=True)


class Ordinary(pydantic.BaseModel):
    """What `UserClaims` would be if FastAPI filled it."""

    iss: str
    aud: tuple[str, ...]
    exp: int
    iat: int
    sub: str
    email: str | None = None
    common_name: str | None = None


class OrdinaryOptional(pydantic.BaseModel):
    """What `AllOptional` would be if FastAPI filled it."""

    iss: str = ""
    aud: tuple[str, ...] = ()
    exp: int = 0


class InModel(pydantic.BaseModel):
    user: UserClaims


class InModelOptional(pydantic.BaseModel):
    user: UserClaims | None = None


class InModelList(pydantic.BaseModel):
    users: list[UserClaims] = []


class Deep(pydantic.BaseModel):
    inner: InModel


class FromAttributes(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(from_attributes=True)
    user: UserClaims


class Root(pydantic.RootModel[UserClaims]):
    pass


class InGeneric(pydantic.BaseModel, Generic[T]):
    user: T


@dataclass
class InDataclass:
    user: UserClaims


class InTypedDict(TypedDict):
    user: UserClaims


class InNamedTuple(NamedTuple):
    user: UserClaims


class Needs:
    def __init__(self, user: UserClaims) -> None:
        self.user = user


Alias = TypeAliasType("Alias", UserClaims)


class WithoutParameters(CloudflareAccess):
    """Configured in its own constructor, as settings objects often are."""

    def __init__(self) -> None:
        super().__init__(team_domain="acme", audience="0" * 64)


def allowed(caller: Claims) -> bool:
    return True


def two_parameters(caller: Claims, route: str) -> bool:
    return True


def no_parameter() -> bool:
    return True


async def asynchronous(caller: Claims) -> bool:
    return True


def gives_text(caller: Claims) -> Any:
    return "yes"


def gives_claims(caller: Claims) -> Any:
    return caller


def gives_nothing(caller: Claims) -> Any:
    return None


def fails(caller: Claims) -> bool:
    raise LookupError


async def optional_claims(user: UserClaims | None = None) -> None: ...


IMPORTS = """
from typing import Annotated, Any, Optional

from fastapi import APIRouter, Body, Cookie, Depends, FastAPI, File, Form, Header, Query, Security, WebSocket
from pydantic import BaseModel, InstanceOf, Json
from starlette.middleware.cors import CORSMiddleware
from support.slips import *

from fastapi_cloudflare_access import Claims, CloudflareAccess, ServiceClaims, UserClaims
from fastapi_cloudflare_access.guard import AccessGuard, PrivateResponses
"""
"""How each program begins; it also has the names `access`, `handler`, `site`, `ran` and `given`."""


# The tables


@dataclass(frozen=True)
class Slip:
    """One wrong declaration.

    Attributes:
        code: What the app wrote.
        expects: When it is found; "refused" if only requests can show it.
        says: The part of the message that says what to write, if it is found before a request.
        error: The class of the error; another one than ours if FastAPI itself refuses the declaration.
        at_once: Whether the declaration itself raises, before FastAPI reads it.
        runs_empty: Whether the handler may run without the lifespan, with no claims at all.
        breaks: Whether requests fail without the lifespan.
        setup: What the program defines first.
    """

    code: str
    expects: Moment
    says: str = ""
    error: type[Exception] = ConfigurationError
    at_once: bool = False
    runs_empty: bool = False
    breaks: bool = False
    setup: str = ""


_SUCH_AS = "such as Annotated[UserClaims, Depends(access.user)]"
_BOTH = "UserClaims | ServiceClaims"
_FORWARD = """
class Forward(UserClaims):
    later: "Optional[Later]" = None

class Later(BaseModel):
    x: int = 0
"""
_FORWARD_REBUILT = f"{_FORWARD}\nForward.model_rebuild(force=True)\nForwardRebuilt = Forward\n"


def _taken(code: str, name: str = "UserClaims", **options: Any) -> Slip:
    """A parameter that would take claims from the request."""
    return Slip(code, "at start", f"write user: Annotated[{name}, Depends(access", **options)


def _unknown(code: str, **options: Any) -> Slip:
    """An annotation that cannot be resolved: FastAPI ignores the `Depends` in it."""
    return Slip(code, "at start", "define what it names at the top of the module", breaks=True, **options)


def _called(code: str, *, setup: str = "") -> Slip:
    """A model that FastAPI would call, and fill from the query."""
    return Slip(code, "at definition", _SUCH_AS, setup=setup)


PARAMETERS = [
    # no Depends
    _taken("user: UserClaims"),
    _taken("user: ServiceClaims", "ServiceClaims"),
    _taken("user: Mine", "Mine"),
    _taken("user: AllOptional", "AllOptional"),
    _taken("user: Typed", "Typed"),
    _taken("user: Typed[int]", "Typed[int]"),
    _taken("user: Deferred", "Deferred"),
    _taken("user: Rebuilt", "Rebuilt"),
    _taken("user: Forward", "Forward", setup=_FORWARD),
    _taken("user: ForwardRebuilt", "Forward", setup=_FORWARD_REBUILT),
    _taken("user: 'UserClaims'"),
    _taken("user: Alias"),
    _taken("user: InstanceOf[UserClaims]"),
    _taken("user: type[UserClaims]"),
    _taken("user: Annotated[UserClaims, 'access.user']"),
    _taken("user: Annotated[UserClaims, Depends]"),
    _taken("user: Annotated[UserClaims, access.require]"),
    _taken("user: Annotated[UserClaims, Depends(access.user), Body()]"),
    _unknown("user: 'Annotated[UserClaims, Depends(unknown.user)]'"),
    _unknown("user: 'Annotated[UserClaims, Depends(unknown.user)]' = None", runs_empty=True),
    # nearly none
    _taken("user: UserClaims | None", runs_empty=True),
    _taken("user: UserClaims | None = None", runs_empty=True),
    _taken("user: Optional[UserClaims] = None", runs_empty=True),
    _taken("user: UserClaims = None", runs_empty=True),
    _taken("user: UserClaims = Body(None)", runs_empty=True),
    _taken("user: UserClaims = Depends", runs_empty=True),
    _taken("user: UserClaims = access.authenticate", runs_empty=True, breaks=True),
    # in other types
    _taken("user: UserClaims | ServiceClaims", _BOTH),
    _taken("user: Claims", _BOTH),
    _taken("user: UserClaims | str", runs_empty=True),
    _taken("user: list[UserClaims]", runs_empty=True),
    _taken("user: set[UserClaims]", runs_empty=True),
    _taken("user: tuple[UserClaims]"),
    _taken("user: tuple[UserClaims, ...]", runs_empty=True),
    _taken("user: dict[str, UserClaims]", runs_empty=True),
    _taken("user: InModel"),
    _taken("user: list[InModel]", runs_empty=True),
    _taken("user: InModel | None = None", runs_empty=True),
    _taken("user: InModelOptional", runs_empty=True),
    _taken("user: InModelList", runs_empty=True),
    _taken("user: Deep"),
    _taken("user: FromAttributes"),
    _taken("user: Root"),
    _taken("user: InGeneric[UserClaims]"),
    _taken("user: InDataclass"),
    _taken("user: InTypedDict"),
    _taken("user: Annotated[InModelOptional, Query()]", runs_empty=True),
    _taken("user: InModel = Depends()"),
    _taken("user: InDataclass = Depends()"),
    _taken("user: Needs = Depends()"),
    # from a place in the request
    _taken("user: Annotated[UserClaims, Body()]"),
    _taken("user: Annotated[UserClaims, Body(embed=True)]"),
    _taken("user: Annotated[UserClaims, Query()]"),
    _taken("user: Annotated[UserClaims, Header()]"),
    _taken("user: Annotated[UserClaims, Cookie()]"),
    _taken("user: Annotated[AllOptional, Query()]", "AllOptional"),
    _taken("user: Annotated[AllOptional, Header()]", "AllOptional"),
    _taken("user: Annotated[AllOptional, Cookie()]", "AllOptional"),
    _taken("user: UserClaims = Body()"),
    _taken("user: UserClaims = Query()"),
    _taken("user: Json[UserClaims]"),
    _taken("user: Annotated[Json[UserClaims], Query()]"),
    _taken("user: Annotated[Json[UserClaims], Header()]"),
    _taken("user: Annotated[Json[UserClaims], Cookie()]"),
    _taken("user: Annotated[Json[AllOptional], Query()]", "AllOptional"),
    _taken("user: InNamedTuple", breaks=True),  # FastAPI fails to make one
    _taken("user: Annotated[UserClaims, Form()]"),
    _taken("user: Annotated[UserClaims, File()]"),
    _taken("user: Annotated[AllOptional, Form()]", "AllOptional"),
    _taken("user: Annotated[Json[UserClaims], Form()]"),
    _taken("user: Annotated[UserClaims | ServiceClaims, Form()]", _BOTH),
    _taken("user: Annotated[UserClaims | None, Form()] = None", runs_empty=True),
    _taken("user: Annotated[list[UserClaims], Form()] = []", runs_empty=True),
    # a class as dependency
    _called("user: UserClaims = Depends()"),
    _called("user: Annotated[UserClaims, Depends()]"),
    _called("user: Annotated[UserClaims, Security()]"),
    _called("user: ServiceClaims = Depends()"),
    _called("user: Mine = Depends()"),
    _called("user: Annotated[Mine, Depends()]"),
    _called("user: AllOptional = Depends()"),
    _called("user: Typed[int] = Depends()"),
    _called("user: Deferred = Depends()"),
    _called("user: Rebuilt = Depends()"),
    _called("user: Forward = Depends()", setup=_FORWARD),
    _called("user: ForwardRebuilt = Depends()", setup=_FORWARD_REBUILT),
    Slip("user: CloudflareAccess = Depends()", "at definition", "write Depends(access)"),
    Slip("user: Annotated[CloudflareAccess, Depends()]", "at definition", "write Depends(access)"),
    # FastAPI refuses these, in its own words
    Slip("user: Claims = Depends()", "at definition", "is not a callable object", TypeError),
    Slip("user: Annotated[UserClaims, Depends(access.user)] = Depends(access)", "at definition", "", AssertionError),
]
"""Parameters of a handler or of a function that it depends on."""

_NOT_WRAPPED = {
    "access": "access",
    "access.user": "access.user",
    "access.service": "access.service",
    "access.optional": "access.optional",
    "access.require(allowed)": "access.require(…)",
    "access.require_user(allowed)": "access.require_user(…)",
    "access.require_service(allowed)": "access.require_service(…)",
    "access.with_audience('x').user": "access.user",
}
_TO_REQUIRE = "write Depends(access.require(policy))"
_PLAIN, _ONE_ARGUMENT = "a policy must be a plain function", "a policy must be a function of one argument"

DEPENDENCIES = [
    *(Slip(code, "at definition", f"write Depends({name})") for code, name in _NOT_WRAPPED.items()),
    *(
        Slip(f"Depends({code}())", "at definition", f"write Depends({name})", at_once=True)
        for code, name in _NOT_WRAPPED.items()
    ),
    Slip("Depends(access.require)", "at definition", _TO_REQUIRE),
    Slip("Depends(access.require_user)", "at definition", _TO_REQUIRE),
    Slip("Depends(access.require_service)", "at definition", _TO_REQUIRE),
    Slip("Depends(access.authenticate)", "at definition", "write Depends(access)"),
    Slip("Depends(access.verify)", "at definition", "write Depends(access)"),
    Slip("Depends(access.lifespan)", "at definition", "write Depends(access)"),
    Slip("Depends(access.with_audience)", "at definition", "write Depends(access.with_audience(…))"),
    Slip("Depends(access.readiness)", "at start", "write Depends(access)"),
    Slip("Depends(CloudflareAccess)", "at definition", "write Depends(access)"),
    Slip("Depends(WithoutParameters)", "at definition", "write Depends(access)"),
    _called("Depends(UserClaims)"),
    _called("Depends(ServiceClaims)"),
    _called("Depends(Mine)"),
    _called("Depends(AllOptional)"),
    _called("Depends(access.user_model)"),
    Slip("Depends(access.keys.health)", "at definition", "write Depends(access)"),
    Slip("Depends(UserClaims.model_construct)", "at definition", "write Depends(access.user)"),
    # scopes
    Slip("Security(access, scopes=['admin'])", "at start", _TO_REQUIRE),
    Slip("Security(access.user, scopes=['admin'])", "at start", _TO_REQUIRE),
    Slip("Security(access.optional, scopes=['admin'])", "at start", _TO_REQUIRE),
    Slip("Security(access.require(allowed), scopes=['admin'])", "at start", _TO_REQUIRE),
    # policies
    Slip("Depends(access.require(two_parameters))", "at definition", _ONE_ARGUMENT, at_once=True),
    Slip("Depends(access.require(no_parameter))", "at definition", _ONE_ARGUMENT, at_once=True),
    Slip("Depends(access.require(asynchronous))", "at definition", _PLAIN, at_once=True),
    Slip("Depends(access.require('admin'))", "at definition", "write Group('admin')", at_once=True),
    Slip("Depends(access.require('a@b.c'))", "at definition", "write Email('a@b.c')", at_once=True),
    Slip("Depends(access.require())", "at definition", "write access.require(policy)", at_once=True),
    Slip("Depends(access.require(allowed, allowed))", "at definition", "combine several by & or |", at_once=True),
    Slip("Depends(access.require(Depends(allowed)))", "at definition", _PLAIN, at_once=True),
    Slip("Depends(access.require(access.user))", "at definition", _PLAIN, at_once=True),
    Slip("Depends(access.require(ServiceToken('cron')))", "at definition", "name='…'", at_once=True),
    Slip("Depends(Group('ops'))", "at definition", "write Depends(access.require"),
    Slip("Depends(access.require(gives_text))", "refused"),
    Slip("Depends(access.require(gives_claims))", "refused"),
    Slip("Depends(access.require(gives_nothing))", "refused"),
    Slip("Depends(access.require(fails))", "refused"),
    Slip("Depends(access.require(lambda caller: caller.groups))", "refused"),
]
"""What is put where FastAPI wants `Depends(…)`."""


_AS_LIFESPAN = "write lifespan=access.lifespan"
_AS_MIDDLEWARE = "write app.add_middleware(AccessGuard, access=access)"
_NOT_ITERABLE = "iterable"
_APP = "app = FastAPI(lifespan=access.lifespan)\n"
_CLOSED = "app.add_api_route('/', handler, dependencies=[Depends(access.require(gives_nothing))])\n"
_ROUTER = f"{_APP}inner, outer = APIRouter(), APIRouter()\ninner.add_api_route('/', handler)\n"
_SUB = "sub = FastAPI()\nsub.add_api_route('/', handler, dependencies=[Security(access.user, scopes=['admin'])])\n"
_OF_A_ROLE = "with the policy of the role"
_LOST = "dependencies=[Depends(access.roles({'admin': allowed}))]"
_ROLES_LOST = {
    "a route": f"{_APP}app.add_api_route('/', handler, {_LOST})\n",
    "a router": f"{_ROUTER}app.include_router(inner, {_LOST})\n",
    "a router in a router": f"{_ROUTER}outer.include_router(inner, {_LOST})\napp.include_router(outer)\n",
    "the app": f"app = FastAPI(lifespan=access.lifespan, {_LOST})\napp.add_api_route('/', handler)\n",
    "a mounted app": f"{_APP}sub = FastAPI({_LOST})\nsub.add_api_route('/', handler)\napp.mount('/', sub)\n",
}
_DECORATED = """
@{decorator}
@app.get("/")
{function}:
    ran.append("http")
    return "RAN"
"""


def _decorated(code: str, expects: Moment, says: str) -> Slip:
    """A decorator above the route: `@access.user async def handler()`."""
    decorator, _, function = code.removeprefix("@").partition(" ")
    source = _APP + _DECORATED.format(decorator=decorator, function=function)
    return Slip(code, expects, says, setup=source)


def _app(code: str, source: str, expects: Moment, says: str = "", **options: Any) -> Slip:
    return Slip(code, expects, says, setup=source, **options)


def _middleware(code: str, expects: Moment, says: str = "", **options: Any) -> Slip:
    return _app(code, f"{_APP}{code}\napp.add_api_route('/', handler)\n", expects, says, breaks=True, **options)


def _method(code: str, method: str, registration: str = "") -> Slip:
    """A method that FastAPI takes for a function: a client could give its `self` in the query."""
    source = (
        f"{_APP}class View:\n    user: UserClaims = Depends(access.user)\n\n    {method}\n        ran.append('http')\n"
    )
    return _app(code, f"{source}\n{registration}\n", "at start", "write a function, and take the caller in a parameter")


def _without_brackets(code: str, source: str) -> Slip:
    return _app(code, source, "at definition", _NOT_ITERABLE, error=TypeError)


_METHODS = [
    _method("@app.get def me(self)", "@app.get('/')\n    def me(self):"),
    _method("@app.get async def me(self, page: int = 1)", "@app.get('/')\n    async def me(self, page: int = 1):"),
    _method("@app.get def me(self=None)", "@app.get('/')\n    def me(self=None):"),
    _method("@classmethod @app.get def me(cls)", "@classmethod\n    @app.get('/')\n    def me(cls):"),
    _method("app.get(View.me)", "def me(self):", "app.get('/')(View.me)"),
    _method("Depends(View.me)", "def me(self):", "app.get('/', dependencies=[Depends(View.me)])(handler)"),
]

APPS = [
    _app("lifespan=access", f"app = FastAPI(lifespan=access)\n{_CLOSED}", "at start", _AS_LIFESPAN),
    _app("lifespan=access.user", f"app = FastAPI(lifespan=access.user)\n{_CLOSED}", "at start", _AS_LIFESPAN),
    _decorated("@access.user async def me()", "at definition", "Depends(access.user)"),
    _decorated("@access.require(allowed) async def me()", "at definition", "Depends(access.require(…))"),
    _decorated("@access.require async def me()", "at definition", _PLAIN),
    _decorated("@access.require def me()", "at definition", _ONE_ARGUMENT),
    _decorated("@access.require def me(item: str = '')", "at definition", _ONE_ARGUMENT),
    _decorated("@access.require_user def me(item: str)", "at definition", _ONE_ARGUMENT),
    _decorated("@access.require_user def me(item)", "at start", _TO_REQUIRE),
    _app("lifespan=access.lifespan()", "app = FastAPI(lifespan=access.lifespan())\n", "at definition", _AS_LIFESPAN),
    _middleware("app.add_middleware(AccessGuard)", "at start", _AS_MIDDLEWARE),
    _middleware("app.add_middleware(AccessGuard, access)", "at start", _AS_MIDDLEWARE),
    _middleware("app.add_middleware(AccessGuard(app, access=access))", "at start", "positional", error=TypeError),
    _middleware(
        "app.add_middleware(PrivateResponses, access)", "at start", "write app.add_middleware(PrivateResponses)"
    ),
    _app("AccessGuard(access, app)", f"{_APP}AccessGuard(access, app)\n", "at definition", _AS_MIDDLEWARE),
    _app("with access:", f"{_APP}with access: pass\n", "at definition", "write async with access:"),
    _app(
        "CloudflareAccess('acme', 'x')", "CloudflareAccess('acme', 'x')\n", "at definition", "team_domain=…, audience=…"
    ),
    _middleware("app.add_middleware(access)", "at start", "access was called with"),
    _middleware("app.add_middleware(CloudflareAccess)", "at start", "takes its settings by name"),
    _middleware("app.middleware('http')(access)", "refused"),
    *_METHODS,
    _without_brackets("FastAPI(dependencies=access)", "FastAPI(dependencies=access)\n"),
    _without_brackets("APIRouter(dependencies=access)", "APIRouter(dependencies=access)\n"),
    _without_brackets(
        "include_router(…, dependencies=access)", f"{_ROUTER}app.include_router(inner, dependencies=access)\n"
    ),
    _without_brackets("get(dependencies=access)", f"{_APP}app.add_api_route('/', handler, dependencies=access)\n"),
    _without_brackets(
        "get(dependencies=Depends(access))", f"{_APP}app.add_api_route('/', handler, dependencies=Depends(access))\n"
    ),
    _app(
        "a router in a router, not wrapped",
        f"{_ROUTER}outer.include_router(inner, dependencies=[access.user])\napp.include_router(outer)\n",
        "at definition",
        "write Depends(access.user)",
    ),
    _app(
        "a router in a router, scopes",
        f"{_ROUTER}outer.include_router(inner, dependencies=[Security(access, scopes=['admin'])])\n"
        "app.include_router(outer)\n",
        "at start",
        _TO_REQUIRE,
    ),
    *(
        _app(f"roles in dependencies=[…] of {place}", source, "at start", _OF_A_ROLE, runs_empty=True)
        for place, source in _ROLES_LOST.items()
    ),
    _app("a mounted app, scopes", f"{_SUB}{_APP}app.mount('/', sub)\n", "at start", _TO_REQUIRE),
    _app("an app for a host, scopes", f"{_SUB}{_APP}app.host('127.0.0.1', sub)\n", "at start", _TO_REQUIRE),
    _app(
        "a mounted app in a middleware, scopes",
        f"{_SUB}{_APP}app.mount('/', CORSMiddleware(sub))\n",
        "at start",
        _TO_REQUIRE,
    ),
]
"""Slips in the structure of an app."""

FRONTENDS = [
    Slip("access.user", "at definition", "write Depends(access.user)"),
    Slip("Depends(access.authenticate)", "at definition", "write Depends(access)"),
    _called("Depends(UserClaims)"),
    Slip("Depends(access.readiness)", "at start", "write Depends(access)"),
    Slip("Security(access.user, scopes=['admin'])", "at start", _TO_REQUIRE),
    _taken("Depends(optional_claims)"),
    Slip("Depends(access.roles({'admin': allowed}))", "at start", _OF_A_ROLE, runs_empty=True),
]
"""Dependencies of an app or router that serves files with `frontend`."""


# The programs


@dataclass(frozen=True)
class Case:
    """A slip in one place of an app.

    Attributes:
        slip: The slip.
        place: Where it is.
        protocol: What the handler speaks.
        source: The program.
    """

    slip: Slip
    place: str
    protocol: Protocol
    source: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.slip.code}, {self.place}, {self.protocol}"

    @property
    def row(self) -> str:
        """The row of the table: the slip, for one protocol."""
        return f"{self.slip.code}, {'frontend' if self.is_frontend else self.protocol}"

    @property
    def is_frontend(self) -> bool:
        """Whether the app or router serves files."""
        return self.place.startswith("frontend")

    @property
    def is_late(self) -> bool:
        """Whether FastAPI reads the declaration at start, and else with each request."""
        is_read_late = INCLUDES_LATE and self.place.removeprefix("frontend of ") in _LATE
        return is_read_late and not self.slip.at_once and self.slip.expects == "at definition"

    @property
    def expects(self) -> Moment:
        """When the slip is found in this place."""
        return "at start" if self.is_late else self.slip.expects

    def can_be(self, broken: Broken) -> bool:
        """Whether this can happen: an app that is not defined gets no requests."""
        return broken == "found" or self.expects != "at definition"

    @property
    def statuses(self) -> set[int]:
        """The status codes that requests may get without the lifespan."""
        return REFUSALS | ({500} if self.is_late or self.slip.breaks else set())


REFUSALS = {401, 403, 422}
_ROUTE = {
    "http": """
@{on}.api_route("/", methods=["GET", "POST"], dependencies=[{route}])
async def handler({parameter}):
    given.append({value})
    ran.append("http")
    return "RAN"
""",
    "websocket": """
@{on}.websocket("/", dependencies=[{route}])
async def handler(socket: WebSocket, {parameter}):
    given.append({value})
    ran.append("websocket")
    await socket.accept()
    await socket.send_text("RAN")
    await socket.close()
""",
}
_PROGRAM = """
{setup}
async def needs({needed}):
    given.append(user)

app = FastAPI(lifespan=access.lifespan, dependencies=[{app}])
router = APIRouter(dependencies=[{router}])
{handler}
app.include_router(router, dependencies=[{included}])
"""
_FRONTEND = """
app = FastAPI(lifespan=access.lifespan, dependencies=[{app}])
router = APIRouter(dependencies=[{router}])
{on}.frontend("/", directory=site)
app.include_router(router, dependencies=[{included}])
"""
_HOLES: dict[str, str] = {
    **dict.fromkeys(("setup", "app", "router", "included", "route", "parameter"), ""),
    "needed": "user: Any = None",
    "value": "None",
    "on": "router",
}
_OF_PARAMETER = {
    "handler": {"parameter": "{code}", "value": "user"},
    "router": {"router": "Depends(needs)", "needed": "{code}"},
    "app": {"app": "Depends(needs)", "needed": "{code}", "on": "app"},
}
_OF_FRONTEND = {
    "router": {"router": "{code}"},
    "included router": {"included": "{code}"},
    "app": {"app": "{code}", "on": "app"},
}
_OF_DEPENDENCY = {
    "Annotated": {"parameter": "user: Annotated[Any, {code}]", "value": "user"},
    "default": {"parameter": "user: Any = {code}", "value": "user"},
    "route": {"route": "{code}"},
    **_OF_FRONTEND,
    "app around a router": {"app": "{code}"},
}
_LATE = {"included router", "app around a router"}
_PROTOCOLS: tuple[Protocol, ...] = ("http", "websocket")


def _cases() -> Iterator[Case]:
    for table, places in ((PARAMETERS, _OF_PARAMETER), (DEPENDENCIES, _OF_DEPENDENCY)):
        for slip in table:
            for protocol in _PROTOCOLS:
                for place, holes in _filled(slip, places):
                    source = _PROGRAM.format_map({**holes, "handler": _ROUTE[protocol].format_map(holes)})
                    yield Case(slip, place, protocol, source)
    for slip in APPS:
        yield Case(slip, "app", "http", slip.setup)
    for slip in FRONTENDS if HAS_FRONTEND else ():
        for place, holes in _filled(slip, _OF_FRONTEND):
            yield Case(slip, f"frontend of {place}", "http", _FRONTEND.format_map(holes))


def ordinary(case: Case) -> Case:
    """Return the case with ordinary models in place of claims: those the requests must be able to fill."""
    source = re.sub(r"\b(?:UserClaims|ServiceClaims)\b", "Ordinary", case.source)
    return replace(case, source=re.sub(r"\bAllOptional\b", "OrdinaryOptional", source))


def _filled(slip: Slip, places: dict[str, dict[str, str]]) -> Iterator[tuple[str, dict[str, str]]]:
    for place, texts in places.items():
        filled = {name: text.format(code=slip.code) for name, text in texts.items()}
        yield place, {**_HOLES, **filled, "setup": slip.setup}


CASES = [*_cases()]


# What is known to be open, or found too late


@dataclass(frozen=True)
class Fault:
    """A slip that the package does not hold yet; remove it here once it does.

    Attributes:
        why: What happens.
        codes: The slips.
        breaks: What does not hold: the slip is not "found", or a request gets "past" it.
        is_at: In which cases; by default in all of these slips.
    """

    why: str
    codes: set[str]
    breaks: set[Broken]
    is_at: Callable[[Case], bool] = lambda _: True

    def cases(self, broken: Broken) -> list[Case]:
        """Return what breaks so."""
        return [
            case
            for case in (CASES if broken in self.breaks else [])
            if case.slip.code in self.codes and case.can_be(broken) and self.is_at(case)
        ]


_NESTED = {
    *("InModel", "Deep", "FromAttributes", "Root", "InGeneric[UserClaims]", "InDataclass", "InTypedDict"),
    *("InNamedTuple", "InModelOptional", "InModelList", "list[InModel]", "InModel | None = None"),
    "Annotated[InModelOptional, Query()]",
}

FAULTS = [
    Fault(
        "the route check does not look into models, dataclasses and the like",
        {f"user: {name}" for name in _NESTED},
        {"found"},
    ),
    Fault(
        "a plain handler of one parameter without an annotation is taken for a policy",
        {"@access.require_user def me(item)"},
        {"found", "past"},
    ),
    Fault(
        "only the lifespan checks routes, and nothing of access is asked at a method that is taken for a function",
        {slip.code for slip in _METHODS},
        {"past"},
    ),
    Fault("the route check does not look at frontends", {"Depends(optional_claims)"}, {"past"}),
]


# Requests that must not get in

BOSS = {"iss": "x", "aud": ["x"], "exp": 1, "iat": 1, "sub": "x", "email": "boss@acme.example"}
BOT = {"iss": "x", "aud": ["x"], "exp": 1, "iat": 1, "sub": "", "common_name": "bot.access"}

_FLAT = {**BOSS, "aud": "x"}
_EVERYWHERE = {
    **_FLAT,
    "common_name": "x",
    "user": json.dumps(BOSS),
    "token": "a.b.c",
    "policy": "x",
    "item": "x",
    "values": "x",
}
_QUERY = urlencode(
    {**_EVERYWHERE, "audience": "x", "self": "x", "cls": "x", "team_domain": "acme", "connection": "x", "app": "x"}
)
_JSON, _FORM = "application/json", "application/x-www-form-urlencoded"
_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
_FILE = f"""--x\r
Content-Disposition: form-data; name="user"; filename="user.json"\r
Content-Type: application/json\r
\r
{json.dumps(BOSS)}\r
--x--\r
""".encode()


@dataclass(frozen=True)
class Attempt:
    """One request.

    Attributes:
        name: What it tries.
        headers: Its headers.
        body: Its body; a request without one is a GET.
        is_full: Whether the query, the headers and the cookies carry claims as well.
        is_variant: Whether one place of the slip is enough for it.
    """

    name: str
    headers: dict[str, str]
    body: bytes | None = None
    is_full: bool = True
    is_variant: bool = False

    def sent(self, protocol: Protocol) -> tuple[str, str, bytes | None, dict[str, str]]:
        """Return the method, the target, the body and the headers."""
        method = "GET" if self.body is None else "POST"
        headers = self.headers | (_UPGRADE if protocol == "websocket" else {})
        if not self.is_full:
            return method, "/", self.body, headers
        claims = {name: str(value) for name, value in _EVERYWHERE.items()}
        claims["Cookie"] = "; ".join(f"{name}={value}" for name, value in claims.items())
        return method, f"/?{_QUERY}", self.body, claims | headers


def _json(body: object, *, is_variant: bool = False) -> Attempt:
    content = json.dumps(body).encode()
    return Attempt(f"JSON {body!r}", {"Content-Type": _JSON}, content, is_variant=is_variant)


def attempts(team: FakeTeam[Any]) -> list[Attempt]:
    """Return the requests that try to get past a slip."""
    ada, bot = team.headers(team.user_token("ada@example.com")), team.headers(team.service_token("bot"))
    forged = team.forge("wrong_key")
    bodies: list[Any] = [BOSS, {"user": BOSS}, [], {}]
    variants: list[Any] = [BOT, {"user": BOT}, {"inner": {"user": BOSS}}, {"x": BOSS}, [BOSS], None, json.dumps(BOSS)]
    return [
        Attempt("nothing", {}, is_full=False),
        Attempt("claims in query, headers and cookies", {}),
        Attempt("a forged token", team.headers(forged)),
        Attempt("a forged cookie", {"Cookie": f"CF_Authorization={forged}"}, is_full=False, is_variant=True),
        Attempt("a valid user", ada, is_full=False, is_variant=True),
        Attempt("a valid user with other claims", ada),
        Attempt("a valid service with other claims", bot, is_variant=True),
        *(_json(body) for body in bodies),
        *(_json(body, is_variant=True) for body in variants),
        Attempt("a form", {"Content-Type": _FORM}, urlencode(_EVERYWHERE).encode()),
        Attempt("an empty form", {"Content-Type": _FORM}, b"", is_full=False, is_variant=True),
        Attempt("a file", {"Content-Type": "multipart/form-data; boundary=x"}, _FILE, is_variant=True),
        Attempt("a valid user with another in the body", {**ada, "Content-Type": _JSON}, json.dumps(BOSS).encode()),
    ]


# Running a program


def protector(team: FakeTeam[Any], **options: Any) -> CloudflareAccess[Any]:
    """Return an object that has the keys of the team."""
    given: dict[str, Any] = {"team_domain": team.team_domain, "audience": team.audience, "user_model": UserClaims}
    access: CloudflareAccess[Any] = CloudflareAccess(**(given | options), fetch=MemoryFetch(team), clock=team.clock)
    access.keys.seed(team.certs_body(), fetched_at=team.clock.now())
    return access


class Program:
    """A program under test, and what its handler did.

    Attributes:
        app: The app; None if the program failed before there was one.
        ran: The protocol of each run of a handler.
        given: What the parameter named `user` held.
    """

    def __init__(self, access: CloudflareAccess[Any], site: str) -> None:
        """Take the object that the program calls `access`, and a folder of files."""
        self.ran: list[str] = []
        self.given: list[object] = []
        self.module = ModuleType("slip_under_test")
        vars(self.module).update(_imported())
        vars(self.module).update(access=access, site=site, ran=self.ran, given=self.given, handler=self._handler)

    def define(self, source: str) -> None:
        """Execute the source."""
        exec(compile(source, "<slip>", "exec"), vars(self.module))  # noqa: S102 - each slip is the text of an app

    @property
    def app(self) -> Any:
        return vars(self.module).get("app")

    def claims(self) -> list[object]:
        """Return the claims that reached the handler."""
        return [claims for value in self.given for claims in _claims_in(value)]

    async def _handler(self) -> str:
        self.ran.append("http")
        return "RAN"


@functools.cache
def _imported() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(IMPORTS, names)  # noqa: S102 - as each program begins
    return names


def start(app: Any) -> None:
    """Start and stop an app as a server does.

    Raises:
        Exception: What the app raises at start.
    """
    received = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> MutableMapping[str, Any]:
        return next(received)

    async def send(message: MutableMapping[str, Any]) -> None: ...

    asyncio.run(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send))


def _claims_in(value: Any) -> Iterator[object]:
    if isinstance(value, UserClaims | ServiceClaims):
        yield value
    elif isinstance(value, pydantic.BaseModel | Needs) or is_dataclass(value):
        yield from _claims_in([*vars(value).values()])
    elif isinstance(value, dict):
        yield from _claims_in([*value.values()])
    elif isinstance(value, list | tuple | set):
        for each in value:
            yield from _claims_in(each)
