"""No setting can be made to mean something unsafe: every default and every limit stands here a second time."""

from typing import Any

import pytest
from pydantic import ValidationError

from fastapi_cloudflare_access._settings import Settings
from fastapi_cloudflare_access.errors import ConfigurationError

DAY = 86_400
GIVEN: dict[str, Any] = {"team_domain": "acme", "audience": "tag"}
TINY = 1e-6
LIMITS: dict[str, tuple[float, float, float]] = {
    "exp_leeway": (10, 0, 300),
    "nbf_leeway": (30, 0, 300),
    "refresh_interval": (600, 60, 3600),
    "jitter": (0.1, 0, 0.5),
    "connect_timeout": (2, TINY, 30),
    "read_timeout": (3, TINY, 30),
    "fetch_timeout": (5, TINY, 30),
    "fetch_retries": (1, 0, 1),
    "wait_budget": (3, 0, 10),
    "backoff_cap": (60, 1, 600),
    "cold_backoff_cap": (5, 1, 60),
    "startup_timeout": (10, 0, 120),
    "startup_attempts": (3, 1, 10),
    "soft_staleness": (1800, TINY, 7 * DAY),
    "max_staleness": (DAY, TINY, 7 * DAY),
    "removal_delay": (30, 1, 600),
    "unknown_key_burst": (3, 1, 10),
    "unknown_key_interval": (5, 1, 300),
    "unknown_key_gap": (1, 0.1, 60),
    "unknown_key_memory": (256, 16, 4096),
    "max_document_size": (65_536, 16_384, 1_048_576),
    "max_keys": (32, 4, 256),
    "token_cache_size": (0, 0, 100_000),
}


def load(**options: Any) -> Settings:
    return Settings.load(**options)


TOGETHER: dict[str, dict[str, float]] = {
    "refresh_interval": {"soft_staleness": 7 * DAY, "max_staleness": 7 * DAY},
    "soft_staleness": {"max_staleness": 7 * DAY},
    "unknown_key_interval": {"refresh_interval": 3600, "soft_staleness": 7 * DAY, "max_staleness": 7 * DAY},
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
    with pytest.raises(ConfigurationError, match=f"^{name}: Input should be less than or equal to"):
        load(**options | {name: beyond})


@pytest.mark.conformance(34, 57)
@pytest.mark.parametrize("name", LIMITS.keys() - {"soft_staleness", "max_staleness"})
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
def test_removals_are_confirmed_and_apps_start_without_keys_unless_told_otherwise() -> None:
    settings = load(**GIVEN)
    assert (settings.confirm_removals, settings.fail_fast) == (True, False)


@pytest.mark.conformance(57)
def test_the_table_has_every_setting_that_is_a_number() -> None:
    settings = load(**GIVEN)
    assert {name for name in Settings.model_fields if type(getattr(settings, name)) in (int, float)} == {*LIMITS}


@pytest.mark.conformance(57)
@pytest.mark.parametrize("name", ["soft_staleness", "max_staleness"])
def test_staleness_below_the_time_between_two_refreshes_is_refused(name: str) -> None:
    shortest: dict[str, Any] = {"soft_staleness": 660, "max_staleness": 660}
    assert load(**GIVEN | shortest).soft_staleness == 660
    with pytest.raises(ConfigurationError, match="soft_staleness must lie between"):
        load(**GIVEN | {name: 659.9})
    with pytest.raises(ConfigurationError, match=f"{name}: Input should be greater than 0"):
        load(**GIVEN | {name: 0})


@pytest.mark.conformance(57)
def test_the_schedule_of_unknown_keys_is_the_documented_one_and_has_limits() -> None:
    assert load(**GIVEN).unknown_key_schedule == (1, 2, 5, 15, 60)
    for good in ((1,), (1, DAY), (1,) * 16, (5, 5)):
        assert load(**GIVEN, unknown_key_schedule=good).unknown_key_schedule == good
    for bad in ((), (0.9,), (1, DAY + 1), (1,) * 17, (2, 1), (0.5, 1), 5, (1, float("nan")), (1, 5, "x")):
        options: dict[str, Any] = GIVEN | {"unknown_key_schedule": bad}
        with pytest.raises(ConfigurationError, match=r"^unknown_key_schedule[ :]"):
            load(**options)


def test_unknown_keys_leave_half_of_the_allowance_to_refreshes() -> None:
    assert load(**GIVEN, refresh_interval=61, unknown_key_interval=30.5).unknown_key_interval == 30.5
    with pytest.raises(ConfigurationError, match=r"^unknown_key_interval must be at most half of .* \(30\.5\), since"):
        load(**GIVEN, refresh_interval=61, unknown_key_interval=30.6)


def test_no_value_is_repeated_even_where_pydantic_tells_of_it() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**GIVEN, challenge="a value of one's own")
    assert "of one's own" not in str(caught.value)
