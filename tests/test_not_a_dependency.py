"""What must never be a dependency is an error when a route is defined, and says what to write."""

import inspect
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.testclient import TestClient

import fastapi_cloudflare_access as package
from fastapi_cloudflare_access import (
    CloudflareAccess,
    ConfigurationError,
    ServiceClaims,
    UserClaims,
    claims,
    keys,
    settings,
)
from fastapi_cloudflare_access._not_a_dependency import forbid_as_dependency
from fastapi_cloudflare_access.browser import SameOrigin

access = CloudflareAccess(team_domain="acme", audience="tag")
METHODS = [
    name
    for name, value in inspect.getmembers(CloudflareAccess)
    if not name.startswith("_") and inspect.isfunction(value) and value.__module__.startswith(package.__name__)
]
PARAMETERLESS = {"readiness"}
"""Also an endpoint, so FastAPI must be able to read it: it is found at the start, see routes/test_check."""
CLASSES = [
    *(SameOrigin, CloudflareAccess, UserClaims, ServiceClaims, claims.Principal),
    *(settings.Settings, settings.KeySettings, keys.KeySource, keys.KeysHealth, keys.ExportedKeys),
]


async def ok() -> str:
    return "ok"


async def talk(socket: WebSocket) -> None:
    await socket.accept()


def test_the_methods_are_those_we_know() -> None:
    assert {"authenticate", "verify", "require", "with_audience", "lifespan", "readiness"} < {*METHODS}


@pytest.mark.conformance(103)
@pytest.mark.parametrize("name", sorted({*METHODS} - PARAMETERLESS - {"for_authenticator", "belongs_to", "depends_on"}))
def test_a_method_as_a_dependency_is_an_error_that_says_what_to_write(name: str) -> None:
    depends = [Depends(getattr(access, name))]
    for add in (FastAPI().add_api_route, APIRouter().add_api_route):
        with pytest.raises(ConfigurationError, match=r"write Depends\(access"):
            add("/", ok, dependencies=depends)
    with pytest.raises(ConfigurationError, match=r"write Depends\(access"):
        FastAPI().add_api_websocket_route("/", talk, dependencies=depends)


@pytest.mark.conformance(103)
@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_class_of_ours_as_a_dependency_is_an_error_that_says_what_to_write(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match=r": (write|declare|make|ask|it is) "):
        FastAPI().add_api_route("/", ok, dependencies=[Depends(kind)])

    async def route(value: Annotated[Any, Depends()]) -> None: ...

    route.__annotations__["value"] = Annotated[kind, Depends()]
    with pytest.raises(ConfigurationError, match=r": (write|declare|make|ask|it is) "):
        FastAPI().add_api_route("/", route)


@pytest.mark.parametrize(
    "name",
    [
        *("health", "refresh", "export", "start", "stop", "fetch_if_unusable"),
        *("get", "get_if_usable", "get_or_fetch", "seed"),
    ],
)
def test_a_method_of_the_keys_is_no_dependency(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r": (write Depends\(access\)|call access\.keys\.seed)"):
        FastAPI().add_api_route("/", ok, dependencies=[Depends(getattr(access.keys, name))])


@pytest.mark.conformance(103)
def test_keys_cannot_be_seeded_by_a_route() -> None:
    with pytest.raises(ConfigurationError, match=r"^Keys never come from a request"):
        FastAPI().add_api_route("/", access.keys.seed, methods=["POST"])


@pytest.mark.parametrize("wrapped", [claims.Principal, list[claims.Principal], claims.Principal | None], ids=str)
def test_a_principal_never_comes_from_a_request(wrapped: Any) -> None:
    app = FastAPI()

    async def route(value: Any) -> str:
        pytest.fail("it ran")

    route.__annotations__["value"] = wrapped
    app.add_api_route("/", route, methods=["POST"])
    client = TestClient(app)
    for body in (["x", "y"], [["x", "y"]], {"issuer": "x", "subject": "y"}, {"value": ["x", "y"]}):
        assert client.post("/", json=body).status_code == 422


@pytest.mark.parametrize("name", ["model_validate", "model_validate_json", "model_construct"])
def test_what_makes_claims_of_anything_is_no_dependency(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"never come from a request: write Depends\(access\.user\)$"):
        FastAPI().add_api_route("/", ok, dependencies=[Depends(getattr(UserClaims, name))])


def test_a_subclass_without_parameters_is_no_dependency_and_its_instances_are() -> None:
    class Mine(CloudflareAccess[UserClaims]):
        def __init__(self) -> None:
            super().__init__(team_domain="acme", audience="tag")

    with pytest.raises(
        ConfigurationError, match=r"^Mine is a class: write Depends\(access\), where access = Mine\(…\)$"
    ):
        FastAPI().add_api_route("/", ok, dependencies=[Depends(Mine)])
    FastAPI().add_api_route("/", ok, dependencies=[Depends(Mine())])


def test_a_class_keeps_its_signature_and_gets_one_parameter_more() -> None:
    class Mine:
        def __init__(self, first: int, *rest: int, name: str = "x", **others: int) -> None: ...

    forbid_as_dependency(Mine, "write something else")
    forbid_as_dependency(Mine, "write something else")
    assert [*inspect.signature(Mine).parameters] == ["first", "rest", "not_a_dependency", "name", "others"]
    with pytest.raises(ConfigurationError, match=r"^write something else$"):
        FastAPI().add_api_route("/", ok, dependencies=[Depends(Mine)])
