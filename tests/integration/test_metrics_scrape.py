"""A real scrape of a real server: the text that Prometheus reads after users, services and others have come."""

from collections.abc import Iterator
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI
from prometheus_client import CollectorRegistry, make_asgi_app
from prometheus_client.parser import text_string_to_metric_families
from support.answer_servers import uvicorn_serving

from fastapi_cloudflare_access import CloudflareAccess, KeySettings, UserClaims
from fastapi_cloudflare_access.instrumentation.prometheus import PrometheusListener
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Site:
    """A server on a real socket, whose keys come from a real certs server."""

    def __init__(self, address: str, certs: CertsServer, team: FakeTeam[SystemClock]) -> None:
        self.address, self.certs, self.team = address, certs, team

    def get(self, path: str, token: str | None = None) -> int:
        headers = {} if token is None else {"Cf-Access-Jwt-Assertion": token}
        return httpx.get(f"http://{self.address}{path}", headers=headers, trust_env=False).status_code

    def scrape(self) -> Samples:
        answer = httpx.get(f"http://{self.address}/metrics/", trust_env=False)
        assert answer.headers["content-type"].startswith("text/plain")
        families = text_string_to_metric_families(answer.text)
        return {
            (sample.name.removeprefix("cloudflare_access_"), tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }


def labels(**given: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((n if n == "error_type" else f"cloudflare_access_{n}", text) for n, text in given.items()))


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    team = FakeTeam("acme", clock=SystemClock())
    registry = CollectorRegistry()
    with CertsServer(team) as certs:
        settings = KeySettings(unknown_kid_burst=1)
        access = CloudflareAccess(
            team_domain=certs.origin,
            audience=team.audience,
            key_settings=settings,
            listeners=[PrometheusListener(registry=registry)],
        )
        app = FastAPI(lifespan=access.lifespan)
        app.mount("/metrics", make_asgi_app(registry))

        @app.get("/me")
        async def me(user: Annotated[UserClaims, Depends(access.user)]) -> str:
            return user.sub

        @app.get("/any", dependencies=[Depends(access)])
        async def any_caller() -> None: ...

        with uvicorn_serving(app) as address:
            yield Site(address, certs, team)


def verifications(samples: Samples, outcome: str, reason: str = "", caller: str = "", cache: str = "") -> float:
    given = labels(outcome=outcome, error_type=reason, caller_type=caller, token_cache_result=cache)
    return samples.get(("verifications_total", given), 0)


def refusals(samples: Samples, outcome: str, reason: str) -> float:
    return samples.get(("refusals_total", labels(outcome=outcome, error_type=reason)), 0)


def test_a_scrape_shows_users_services_refused_and_limited_requests(site: Site) -> None:
    user, service = site.team.user_token("ada@example.com"), site.team.service_token("bot")
    assert [site.get("/me", user) for _ in range(5)] == [200] * 5
    assert [site.get("/any", service) for _ in range(3)] == [200] * 3
    assert [site.get("/me", service), site.get("/me"), site.get("/me", site.team.forge("expired"))] == [403, 401, 401]
    unknown = [site.get("/me", site.team.forge("unknown_kid")) for _ in range(6)]
    assert {*unknown} <= {401, 503}
    samples = site.scrape()
    assert verifications(samples, "accepted", caller="user", cache="miss") == 1
    assert verifications(samples, "accepted", caller="user", cache="hit") == 4
    assert verifications(samples, "accepted", caller="service", cache="miss") == 1
    assert verifications(samples, "accepted", caller="service", cache="hit") == 3
    assert verifications(samples, "rejected", "token_expired") == 1
    assert refusals(samples, "refused", "wrong_caller") == 1
    assert refusals(samples, "rejected", "missing_token") == 1
    assert refusals(samples, "rejected", "token_expired") == 1
    assert refusals(samples, "rejected", "unknown_key") == unknown.count(401)
    assert refusals(samples, "unavailable", "key_unconfirmed") == unknown.count(503)
    limited = sum(value for (name, _), value in samples.items() if name == "keys_limited_total")
    assert limited == unknown.count(503)
    timed = labels(outcome="accepted", error_type="", caller_type="user")
    assert samples["verification_duration_seconds_count", timed] == 1


def test_a_scrape_shows_the_state_of_the_keys_and_the_fetches(site: Site) -> None:
    team = labels(team_domain=site.certs.origin)
    samples = site.scrape()
    assert samples["keys_ready", team] == samples["keys_refreshing", team] == 1
    assert samples["keys_in_use", team] == 2
    assert 0 <= samples["keys_age_seconds", team] < 60
    assert samples["keys_fetches_total", team] == site.certs.fetches
    assert samples["keys_fetch_duration_seconds_count", labels(outcome="modified", error_type="")] == 1
    assert samples["streams_open", team] == 0


def test_a_token_of_an_unknown_key_during_an_outage_is_counted_as_unavailable(site: Site) -> None:
    site.certs.fail_with(500)
    assert {site.get("/me", site.team.forge("unknown_kid")) for _ in range(3)} == {503}
    samples = site.scrape()
    assert refusals(samples, "unavailable", "key_unconfirmed") == 3
    assert samples["keys_fetch_duration_seconds_count", labels(outcome="failed", error_type="fetch_failed")] >= 1
    assert samples["keys_consecutive_failures", labels(team_domain=site.certs.origin)] >= 1
