"""A call with wrong arguments is an error that says what to write."""

import inspect
import pickle
import traceback
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError
from fastapi_cloudflare_access._calls import or_write
from fastapi_cloudflare_access.guard import AccessGuard, PrivateResponses

access: Any = CloudflareAccess(team_domain="acme", audience="a" * 64)
untyped: Any = CloudflareAccess
guard: Any = AccessGuard
MIDDLEWARE = "write app.add_middleware(AccessGuard, access=access)"


class Configured(CloudflareAccess):
    """A class that knows its team."""

    def __init__(self) -> None:
        super().__init__(team_domain="acme", audience="a" * 64)


def with_access() -> None:
    with access:
        pass


def started(*arguments: Any) -> None:
    app = FastAPI()
    app.add_middleware(*arguments)
    with TestClient(app):
        pass


@pytest.mark.parametrize(
    ("call", "write"),
    [
        (access.lifespan, "write lifespan=access.lifespan, without ()"),
        (lambda: FastAPI(lifespan=access.lifespan()), "write lifespan=access.lifespan, without ()"),
        (lambda: started(AccessGuard), MIDDLEWARE),
        (lambda: started(AccessGuard, access), MIDDLEWARE),
        (lambda: guard(access, FastAPI()), MIDDLEWARE),
        (lambda: started(PrivateResponses, access), "write app.add_middleware(PrivateResponses)"),
        (access.require, "write access.require(policy), and combine several by & or |"),
        (lambda: access.require_user(str, str), "write access.require_user(policy), and combine several by & or |"),
        (access.require_service, "write access.require_service(policy), and combine several by & or |"),
        (lambda: access.require_user("admins"), "a policy is not text: write Group('admins')"),
        (lambda: access.require_user("a@b.c"), "a policy is not text: write Email('a@b.c')"),
        (lambda: untyped("acme", "x"), "write CloudflareAccess(team_domain=…, audience=…)"),
        (with_access, "write async with access:"),
    ],
    ids=range(13),
)
def test_a_wrong_call_is_an_error_that_says_what_to_write(call: Any, write: str) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        call()
    assert str(wrong.value).partition(": ")[2].startswith(write) or str(wrong.value) == write


def test_a_call_that_fits_is_unchanged_and_its_own_errors_stay() -> None:
    def divide(x: int) -> float:
        """Return 1, divided by a number."""
        return 1 / x

    checked: Any = or_write("write divide(x)")(divide)
    assert checked(1) == checked(x=1) == 1
    with pytest.raises(TypeError, match="unsupported operand"):
        checked("1")
    with pytest.raises(ConfigurationError, match=r"^write divide\(x\)$") as wrong:
        checked()
    assert wrong.value.__suppress_context__
    assert (checked.__name__, [*inspect.signature(checked).parameters]) == ("divide", ["x"])


def test_signatures_are_those_that_are_written() -> None:
    assert isinstance(Configured(), CloudflareAccess)
    assert [*inspect.signature(CloudflareAccess.__init__).parameters][:3] == ["self", "team_domain", "audience"]
    assert [*inspect.signature(access.require).parameters] == ["policy"]
    assert [*inspect.signature(AccessGuard.__init__).parameters][:3] == ["self", "app", "access"]


@pytest.mark.parametrize(
    "attribute", [lambda: access.user.dependency, lambda: access.revocations], ids=["wrap", "store"]
)
def test_an_absent_attribute_is_shown_as_the_documented_error(attribute: Any) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        attribute()
    shown = traceback.format_exception_only(wrong.value)[0]
    assert shown.startswith("fastapi_cloudflare_access.errors.ConfigurationError: access.")
    again = pickle.loads(pickle.dumps(wrong.value))  # noqa: S301 - as workers send it
    assert (type(again), str(again)) == (ConfigurationError, str(wrong.value))
    assert isinstance(wrong.value, AttributeError)
