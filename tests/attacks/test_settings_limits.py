"""No setting can be made to mean something unsafe: every default and every limit stands here a second time."""

from types import SimpleNamespace
from typing import Any

import pytest
from support.options import grouped

from fastapi_cloudflare_access import settings
from fastapi_cloudflare_access._keys import document, fetcher, http, jwks, rate_limiter
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.settings import Settings

DAY = 86_400
GIVEN: dict[str, Any] = {"team_domain": "acme", "audience": "tag"}
TINY = 1e-6
LIMITS: dict[str, tuple[float, float, float]] = {
    "exp_leeway": (10, 0, 300),
    "nbf_leeway": (30, 0, 300),
    "refresh_interval": (600, 60, 3600),
    "fetch_timeout": (5, TINY, 30),
    "key_wait_timeout": (3, 0, 10),
    "startup_timeout": (10, 0, 120),
    "degraded_after": (1800, TINY, 7 * DAY),
    "max_staleness": (DAY, TINY, 7 * DAY),
    "removal_grace": (30, 0, 600),
    "unknown_kid_burst": (3, 1, 10),
    "unknown_kid_interval": (5, 1, 300),
    "token_cache_size": (1024, 0, 100_000),
    "recheck_session": (0, 0, DAY),
    "recheck_grace": (0, 0, 7 * DAY),
}


def load(**options: Any) -> Any:
    """Load both groups, and give their settings by one flat set of names."""
    settings = Settings.load(**grouped(options))
    return SimpleNamespace(**settings.key_settings.model_dump(), **settings.model_dump(exclude={"key_settings"}))


TOGETHER: dict[str, dict[str, Any]] = {
    "refresh_interval": {"degraded_after": 7 * DAY, "max_staleness": 7 * DAY},
    "degraded_after": {"max_staleness": 7 * DAY},
    "recheck_session": {"recheck_unavailable": "deny"},
    "recheck_grace": {"recheck_session": 60, "recheck_unavailable": "allow"},
    "unknown_kid_interval": {"refresh_interval": 3600, "degraded_after": 7 * DAY, "max_staleness": 7 * DAY},
}
"""What else has to be given for the highest value of a setting to be possible."""


@pytest.mark.conformance(34, 57)
@pytest.mark.parametrize("name", LIMITS)
def test_the_default_of_a_setting_is_the_documented_one(name: str) -> None:
    assert getattr(load(**GIVEN), name) == LIMITS[name][0]


@pytest.mark.conformance(34, 57)
@pytest.mark.parametrize("name", LIMITS)
def test_a_setting_goes_as_high_as_its_limit_and_no_higher(name: str) -> None:
    highest = LIMITS[name][2]
    options: dict[str, Any] = GIVEN | TOGETHER.get(name, {}) | {name: highest}
    assert getattr(load(**options), name) == highest
    beyond = highest + (1 if isinstance(highest, int) else TINY)
    with pytest.raises(ConfigurationError, match=f"^{name} must be .* to {highest:g}$"):
        load(**options | {name: beyond})


@pytest.mark.conformance(34, 57)
@pytest.mark.parametrize("name", LIMITS.keys() - {"degraded_after", "max_staleness"})
def test_a_setting_goes_as_low_as_its_limit_and_no_lower(name: str) -> None:
    lowest = LIMITS[name][1]
    options: dict[str, Any] = GIVEN | {name: lowest}
    assert getattr(load(**options), name) == lowest
    with pytest.raises(ConfigurationError, match=name):
        load(**options | {name: 0 if lowest == TINY else lowest - (1 if isinstance(lowest, int) else TINY)})


@pytest.mark.conformance(57)
@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [True, "x", None, float("nan"), float("inf"), -1, [1]], ids=repr)
def test_a_setting_that_is_a_number_takes_nothing_else(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        load(**GIVEN | {name: value})


@pytest.mark.conformance(57)
def test_apps_start_without_keys_by_default() -> None:
    assert load(**GIVEN).fail_fast is False


@pytest.mark.conformance(57)
def test_the_table_has_every_setting_that_is_a_number() -> None:
    assert {name for name, value in vars(load(**GIVEN)).items() if type(value) in (int, float)} == {*LIMITS}


@pytest.mark.conformance(57)
@pytest.mark.parametrize("name", ["degraded_after", "max_staleness"])
def test_staleness_below_the_time_between_two_refreshes_is_refused(name: str) -> None:
    shortest: dict[str, Any] = {"degraded_after": 660, "max_staleness": 660}
    assert load(**GIVEN | shortest).degraded_after == 660
    with pytest.raises(ConfigurationError, match="degraded_after must be between"):
        load(**GIVEN | {name: 659.9})
    with pytest.raises(ConfigurationError, match=f"{name} must be a number above 0"):
        load(**GIVEN | {name: 0})


@pytest.mark.conformance(34, 57)
def test_what_is_no_setting_is_a_constant_with_the_documented_value() -> None:
    assert (jwks.MAX_KEYS, document.MAX_DOCUMENT, http.CONNECT_TIMEOUT, http.READ_TIMEOUT) == (32, 65_536, 2, 3)
    assert (settings.JITTER, fetcher.STARTUP_ATTEMPTS, rate_limiter.FETCH_GAP) == (0.1, 3, 1)
    assert (rate_limiter.MAX_BACKOFF, rate_limiter.MAX_BACKOFF_WITHOUT_KEYS) == (60, 5)
    assert (rate_limiter.MAX_RETRY_AFTER, rate_limiter.MAX_RETRY_AFTER_WITHOUT_KEYS) == (300, 120)
    assert (rate_limiter.NEGATIVE_CACHE_TTLS, rate_limiter.MAX_NEGATIVE_CACHE_ENTRIES) == ((1, 2, 5, 15, 60), 256)


def test_unknown_keys_leave_half_of_the_allowance_to_refreshes() -> None:
    assert load(**GIVEN, refresh_interval=61, unknown_kid_interval=30.5).unknown_kid_interval == 30.5
    with pytest.raises(ConfigurationError, match=r"^unknown_kid_interval must be at most half of .* \(30\.5\), since"):
        load(**GIVEN, refresh_interval=61, unknown_kid_interval=30.6)


def test_no_value_is_repeated_even_if_pydantic_shows_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings(**GIVEN, auth_scheme="a value of one's own")
    assert "of one's own" not in str(caught.value)
