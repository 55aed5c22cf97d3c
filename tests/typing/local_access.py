"""Types of the local Access and of its fixtures for pytest: never executed, read by mypy and pyright."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from pathlib import Path
from typing import Any, assert_type

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims
from fastapi_cloudflare_access.local import (
    App,
    Config,
    Person,
    Policy,
    RunningAccess,
    ServiceToken,
    Team,
    load_config,
    run_local_access,
)
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam
from pytest_fastapi_cloudflare_access import AsService, AsUser

config = Config(
    team=Team(name="acme", session=3600),
    apps=(App(name="shop", host="shop.localhost", policies=(Policy(decision="allow", groups=("admins",)),)),),
    people=(Person(email="ada@example.com", groups=("admins",), custom={"level": 3}),),
    service_tokens=(ServiceToken(name="backup"),),
)
assert_type(load_config(Path("access.toml")), Config)
load_config("access.toml")  # type: ignore[arg-type]
Policy(decision="permit")  # type: ignore[arg-type]
App(host="shop.localhost")  # type: ignore[call-arg]

with run_local_access(FastAPI(), config=config, state=Path("state"), tls_port=0) as running:
    assert_type(running, RunningAccess)
    assert_type(running.ca_file, Path | None)
with run_local_access(upstream="http://127.0.0.1:8000") as running:
    running.forward_to("http://127.0.0.1:8001")
run_local_access(FastAPI(), config)  # type: ignore[arg-type, call-arg]


# the fixtures, in a test of an app


@pytest.fixture(scope="session")
def local_access_config() -> Config:
    return config


def test_the_shop(local_access: RunningAccess, local_access_server: RunningAccess) -> None:
    local_access.mount("shop:app")
    local_access.mount(Starlette())
    local_access.mount(FastAPI(), time_limit=5)
    assert_type(local_access.team_domain, str)
    assert_type(local_access.audience, str)
    assert_type(local_access.environment, dict[str, str])
    assert_type(local_access.url("/cart", app="shop"), str)
    assert_type(local_access.app("shop"), App)
    assert_type(local_access.service_headers("backup"), dict[str, str])
    assert_type(local_access.control("token", email="ada@example.com"), dict[str, Any])
    CloudflareAccess(team_domain=local_access_server.team_domain, audience=local_access_server.audience)
    local_access.mount(None)  # type: ignore[arg-type]
    local_access.url("/cart", "shop")  # type: ignore[call-arg]
    local_access.control(command=1)  # type: ignore[arg-type]


def test_the_kit(
    access_team: FakeTeam, access_certs: CertsServer, access_as_user: AsUser, access_as_service: AsService
) -> None:
    access = CloudflareAccess(team_domain=access_certs.origin, audience=access_team.audience)
    assert_type(access_as_user(access, "ada@example.com", groups=["admins"]), UserClaims)
    assert_type(access_as_service(access), ServiceClaims)
