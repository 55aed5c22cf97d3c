"""The pytest plugin with the fixtures; the package is imported only when a test uses one.

It is outside the package, because an import from the package would load FastAPI in every project of the environment.
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack
from importlib import import_module
from time import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims
    from fastapi_cloudflare_access.local import Config, RunningAccess
    from fastapi_cloudflare_access.testing import CertsServer, FakeTeam

    AsUser = Callable[..., UserClaims]
    AsService = Callable[..., ServiceClaims]


def _kit() -> Any:
    return import_module("fastapi_cloudflare_access.testing")


@pytest.fixture
def access_team() -> "FakeTeam":
    """Return a new `FakeTeam("acme")` on a `FakeClock`; its keys are generated once per process."""
    team: FakeTeam = _kit().FakeTeam("acme")
    return team


@pytest.fixture
def access_as_user(access_team: "FakeTeam") -> "Generator[AsUser]":
    """Return `access_as_user(access, "ada@example.com", groups=[…])`, which overrides the caller with a user."""
    with ExitStack() as stack:

        def as_user(access: "CloudflareAccess[Any]", email: str = "ada@example.com", **options: Any) -> "UserClaims":
            user = access_team.user(email, **options)
            given: UserClaims = stack.enter_context(_kit().override(access, user))
            return given

        yield as_user


@pytest.fixture
def access_as_service(access_team: "FakeTeam") -> "Generator[AsService]":
    """Return `access_as_service(access, "deploy-bot")`, which overrides the caller with a service."""
    with ExitStack() as stack:

        def as_service(access: "CloudflareAccess[Any]", name: str = "deploy-bot", **options: Any) -> "ServiceClaims":
            service = access_team.service(name, **options)
            given: ServiceClaims = stack.enter_context(_kit().override(access, service))
            return given

        yield as_service


@pytest.fixture
def access_certs(access_team: "FakeTeam") -> "Generator[CertsServer]":
    """Start a server for the certs of `access_team`; its origin is the team's issuer during the test.

    The fixture sets the team's clock to the machine's time, so an access object for this origin accepts its tokens.
    """
    access_team.clock.shift_wall(time() - access_team.clock.now())
    with _kit().CertsServer(access_team) as server:
        yield server


@pytest.fixture(scope="session")
def local_access_config() -> "Config":
    """Return the configuration of `local_access`; override this fixture to define apps, users and policies."""
    config: Config = _local().Config()
    return config


@pytest.fixture(scope="session")
def local_access_server(local_access_config: "Config") -> "Generator[RunningAccess]":
    """Start a local Access on a free port, once for all tests of the process."""
    with _local().run_local_access(config=local_access_config) as running:
        yield running


@pytest.fixture
def local_access(local_access_server: "RunningAccess", monkeypatch: pytest.MonkeyPatch) -> "RunningAccess":
    """Return the local Access without the trouble of the last test; sessions stay, for a browser that is logged in.

    The environment has the variables of the app during the test.
    """
    local_access_server.control("reset", sessions="keep")
    for name, value in local_access_server.environment.items():
        monkeypatch.setenv(name, value)
    return local_access_server


def _local() -> Any:
    try:
        return import_module("fastapi_cloudflare_access.local")
    except ModuleNotFoundError as missing:
        raise pytest.UsageError(
            f"the fixture local_access needs {missing.name}: pip install 'fastapi-cloudflare-access[local,testing]'"
        ) from None
