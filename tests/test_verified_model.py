"""A model whose instances come from verification is never made by the schema of another model."""

import pickle
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel, ConfigDict, Json, RootModel, TypeAdapter, ValidationError, create_model
from typing_extensions import TypedDict

from fastapi_cloudflare_access import ConfigurationError, ServiceClaims, UserClaims
from fastapi_cloudflare_access.testing import FakeTeam

ADA = FakeTeam("acme").user("ada@example.com", groups=["a"])
WIRE: dict[str, Any] = {"iss": "x", "aud": ["x"], "exp": 1, "iat": 1, "sub": "x", "email": "boss@acme.example"}
T = TypeVar("T")


class Mine(UserClaims):
    level: int = 0


class Boxed(UserClaims, Generic[T]):
    box: T | None = None


class Deferred(UserClaims):
    model_config = ConfigDict(defer_build=True)


class Forward(UserClaims):
    later: "Later | None" = None


EARLY: TypeAdapter[Any] = TypeAdapter(list[UserClaims])


class Holder(BaseModel):
    user: UserClaims
    others: list[Mine] = []


@dataclass
class Data:
    user: UserClaims


class Typed(TypedDict):
    user: UserClaims


class Root(RootModel[UserClaims]):
    """A model that is a user."""


class Later(BaseModel):
    x: int = 1


SCHEMAS: dict[str, tuple[Any, Any]] = {
    "list": (list[UserClaims], [WIRE]),
    "optional": (UserClaims | None, WIRE),
    "union": (UserClaims | ServiceClaims, WIRE),
    "mapping": (dict[str, Mine], {"a": WIRE}),
    "model": (Holder, {"user": WIRE}),
    "dataclass": (Data, {"user": WIRE}),
    "typed dict": (Typed, {"user": WIRE}),
    "root": (Root, WIRE),
    "created": (create_model("Created", user=(Mine, ...)), {"user": WIRE}),
    "generic": (list[Boxed[int]], [WIRE]),
    "deferred": (list[Deferred], [WIRE]),
    "forward": (list[Forward], [WIRE]),
    "text": (list[Json[UserClaims]], ['{"iss":"x"}']),
    "early": (None, [WIRE]),
}


@pytest.mark.conformance(101)
@pytest.mark.parametrize("name", SCHEMAS)
def test_another_schema_admits_instances_only(name: str) -> None:
    kind, value = SCHEMAS[name]
    adapter = EARLY if kind is None else TypeAdapter(kind)
    for from_attributes in (False, True):
        with pytest.raises(ValidationError, match="this never comes from a request"):
            adapter.validate_python(value, from_attributes=from_attributes)


@pytest.mark.parametrize("model", [UserClaims, Mine, Boxed, Boxed[int], Deferred, Forward])
def test_its_own_constructor_and_validation_work_as_ever(model: type[UserClaims]) -> None:
    user = model.model_validate(WIRE)
    assert user == model(**WIRE) == model.model_validate_json(user.model_dump_json())
    assert user == pickle.loads(pickle.dumps(user))  # noqa: S301 - our own
    model.model_rebuild(force=True)
    assert model.model_validate(WIRE) == user
    with pytest.raises(ValidationError):
        TypeAdapter(list[model]).validate_python([WIRE])  # type: ignore[valid-type]


def test_instances_pass_and_serialise_as_the_model_says() -> None:
    held = Holder(user=ADA)
    assert held.user is ADA
    assert held.model_dump()["user"] == ADA.model_dump()
    assert TypeAdapter(list[UserClaims]).dump_python([ADA]) == [ADA.model_dump()]
    with pytest.raises(ValidationError):
        Holder(user=ADA, others=[ADA])  # type: ignore[list-item]


@pytest.mark.conformance(103)
@pytest.mark.parametrize("model", [UserClaims, ServiceClaims, Mine, Boxed[int], Deferred, Forward])
def test_as_a_class_dependency_it_is_an_error_that_says_what_to_write(model: Any) -> None:
    app = FastAPI()
    model.model_rebuild(force=True)
    with pytest.raises(ConfigurationError, match=r"never comes from a request.*Depends\(access\.user\)\]$"):
        app.add_api_route("/", lambda: "", dependencies=[Depends(model)])


def test_a_model_whose_hooks_do_not_call_pydantics_is_guarded_too() -> None:
    registered: list[type[UserClaims]] = []

    class Registered(UserClaims):
        @classmethod
        def __pydantic_init_subclass__(cls, **options: Any) -> None:
            registered.append(cls)

        def __init_subclass__(cls, **options: Any) -> None:
            pass

    class Employee(Registered):
        department: str = "x"

    assert registered == [Employee]
    assert Employee.model_validate(WIRE).sub == "x"
    with pytest.raises(ValidationError):
        TypeAdapter(list[Employee]).validate_python([WIRE])


def test_the_developer_reads_once_in_the_log_what_to_write(caplog: pytest.LogCaptureFixture) -> None:
    class Logged(UserClaims):
        """A model of its own, which nothing else has logged."""

    for _ in range(3):
        with pytest.raises(ValidationError):
            TypeAdapter(list[Logged]).validate_python([WIRE])
    (record,) = [record for record in caplog.records if "Logged" in record.getMessage()]
    assert record.getMessage().startswith("Logged never comes from a request: declare the parameter")


def test_its_signature_still_shows_every_claim() -> None:
    from inspect import signature

    assert {*UserClaims.model_fields} <= {*signature(UserClaims).parameters}
    assert [*signature(Mine).parameters].count("not_a_dependency") == 1
