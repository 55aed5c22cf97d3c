"""The fixtures that pytest finds by itself; nothing is imported before one of them is used.

It stands outside the package because importing a module of the package would import the package, FastAPI included,
into every project of the environment.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack
from importlib import import_module
from time import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims
    from fastapi_cloudflare_access.testing import CertsServer, FakeTeam

    AsUser = Callable[..., UserClaims]
    AsService = Callable[..., ServiceClaims]


def _kit() -> Any:
    return import_module("fastapi_cloudflare_access.testing")


@pytest.fixture
def access_team() -> "FakeTeam":
    """A team of your own, `acme`, on a clock that stands still; a new one for each test, with keys made once."""
    team: FakeTeam = _kit().FakeTeam("acme")
    return team


@pytest.fixture
def access_as_user(access_team: "FakeTeam") -> "Generator[AsUser]":
    """`access_as_user(access, "ada@example.com", groups=[…])`: every request of this test comes from this user."""
    with ExitStack() as stack:

        def as_user(access: "CloudflareAccess[Any]", email: str = "ada@example.com", **options: Any) -> "UserClaims":
            user = access_team.user(email, **options)
            given: UserClaims = stack.enter_context(_kit().override(access, user))
            return given

        yield as_user


@pytest.fixture
def access_as_service(access_team: "FakeTeam") -> "Generator[AsService]":
    """`access_as_service(access, "deploy-bot")`: every request of this test comes from this service."""
    with ExitStack() as stack:

        def as_service(access: "CloudflareAccess[Any]", name: str = "deploy-bot", **options: Any) -> "ServiceClaims":
            service = access_team.service(name, **options)
            given: ServiceClaims = stack.enter_context(_kit().override(access, service))
            return given

        yield as_service


@pytest.fixture
def access_certs(access_team: "FakeTeam") -> "Generator[CertsServer]":
    """The certs of `access_team` on a real socket, whose origin is the team's issuer during the test.

    The team's clock then stands at the machine's time, so an access object for that origin takes the team's tokens.
    """
    access_team.clock.shift_wall(time() - access_team.clock.now())
    with _kit().CertsServer(access_team) as server:
        yield server
