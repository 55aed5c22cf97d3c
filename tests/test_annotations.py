"""FastAPI can resolve every annotation that it has to."""

import inspect
import pydoc
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest
from fastapi import FastAPI
from fastapi.dependencies.utils import get_dependant
from starlette.requests import HTTPConnection
from starlette.responses import Response

from fastapi_cloudflare_access import Claims, CloudflareAccess, ServiceClaims, UserClaims, access, claims

ACCESS = CloudflareAccess(team_domain="acme", audience="tag")


def everyone(caller: object) -> bool:
    return caller is not None


NODES: dict[str, Callable[..., Any]] = {
    "access": ACCESS,
    "optional": ACCESS.optional,
    "user": ACCESS.user,
    "service": ACCESS.service,
    "require": ACCESS.require(everyone),
    "require_user": ACCESS.require_user(everyone),
    "require_service": ACCESS.require_service(everyone),
}


def resolvable(dependency: Callable[..., Any]) -> Callable[..., Any]:
    return dependency if inspect.isfunction(dependency) else dependency.__call__  # type: ignore[operator]


@pytest.mark.parametrize("name", NODES)
def test_the_annotations_of_each_dependency_resolve(name: str) -> None:
    hints = get_type_hints(resolvable(NODES[name]), include_extras=True)
    assert hints["connection"] is HTTPConnection
    assert hints["return"] is not None


@pytest.mark.parametrize("name", NODES)
def test_fastapi_sees_one_connection_and_no_parameter_from_the_request(name: str) -> None:
    dependant = get_dependant(path="/", call=NODES[name])
    assert (dependant.http_connection_param_name, dependant.request_param_name) == ("connection", None)
    parameters = [dependant.path_params, dependant.query_params, dependant.header_params, dependant.cookie_params]
    assert [*parameters, dependant.body_params] == [[], [], [], [], []]


@pytest.mark.parametrize("name", NODES)
def test_each_dependency_is_one_node(name: str) -> None:
    assert get_dependant(path="/", call=NODES[name]).dependencies == []


def test_the_readiness_route_says_what_it_returns() -> None:
    assert get_type_hints(ACCESS.readiness) == {"request": HTTPConnection, "return": Response}
    app = FastAPI()
    app.add_api_route("/ready", ACCESS.readiness)
    assert app.openapi()["paths"]["/ready"]["get"]["responses"]["200"]["content"] == {
        "application/json": {"schema": {}}
    }


@pytest.mark.parametrize("model", [UserClaims, ServiceClaims])
def test_every_claim_has_a_type_and_a_description(model: type[Claims]) -> None:
    assert set(model.model_fields) <= set(get_type_hints(model, include_extras=True))
    assert model.model_json_schema()["properties"].keys() == model.model_fields.keys()


@pytest.mark.parametrize("model", [UserClaims, ServiceClaims])
def test_help_shows_the_description_of_every_claim_and_openapi_shows_each_once(model: type[Claims]) -> None:
    shown = pydoc.plain(pydoc.render_doc(model))
    schema = model.model_json_schema()
    descriptions = {name: field.description for name, field in model.model_fields.items()}
    assert {name: text.splitlines()[0] in shown for name, text in descriptions.items() if text} == dict.fromkeys(
        descriptions, True
    )
    assert {name: claim["description"] for name, claim in schema["properties"].items()} == descriptions
    assert "Attributes" in shown
    assert "Attributes" not in schema["description"]


def test_the_docstring_of_a_model_of_the_app_is_its_description() -> None:
    class Employee(UserClaims):
        """A person on the payroll."""

    class Contractor(UserClaims):
        pass

    assert Employee.model_json_schema()["description"] == "A person on the payroll."
    assert "description" not in Contractor.model_json_schema()


@pytest.mark.parametrize("module", [access, claims])
def test_no_module_that_fastapi_reads_postpones_its_annotations(module: Any) -> None:
    """`from __future__ import annotations` would leave `Depends(self)` unresolvable."""
    assert not hasattr(module, "annotations")
