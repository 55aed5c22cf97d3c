"""Health and events: what the package says about itself."""

import inspect
import re

import pytest
from pydantic import ValidationError
from support.key_rig import KeyRig

from fastapi_cloudflare_access import events
from fastapi_cloudflare_access.events import AccessEvent, KeyEvent
from fastapi_cloudflare_access.keys import KeysHealth

pytestmark = pytest.mark.anyio

KINDS = [*AccessEvent.__subclasses__(), *KeyEvent.__subclasses__()]


def test_the_tree_of_events_is_drawn_as_it_grows() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", inspect.getdoc(events) or ""))
    assert drawn == {kind.__name__ for kind in KINDS}


def test_every_event_has_a_name_of_its_own_in_snake_case() -> None:
    assert [kind.name for kind in KINDS] == [re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in KINDS]


@pytest.mark.conformance(54)
def test_every_field_of_the_health_is_described() -> None:
    described = re.findall(r"^\s+(\w+): ", (inspect.getdoc(KeysHealth) or "").split("Attributes:")[1], re.MULTILINE)
    assert described == list(KeysHealth.model_fields)


async def test_a_source_without_keys_is_cold_and_not_ready() -> None:
    assert KeyRig().keys.health().model_dump() == {
        "state": "cold",
        "ready": False,
        "local": False,
        "age": None,
        "generation": 0,
        "keys": 0,
        "keys_pending_removal": 0,
        "skipped": 0,
        "last_error": None,
        "consecutive_failures": 0,
        "next_refresh_in": 0.0,
        "refresher_alive": False,
        "fetching": False,
        "waiters": 0,
        "negative_cache_entries": 0,
        "fetches": 0,
        "fetch_failures": 0,
        "parse_failures": 0,
        "rate_limited": 0,
        "unknown_kid_rejections": 0,
        "snapshots_loaded": 0,
        "snapshots_saved": 0,
        "snapshots_rejected": 0,
        "store_failures": 0,
        "last_store_error": None,
    }


async def test_a_source_at_work_is_ok_and_ready() -> None:
    rig = KeyRig(jitter=False)
    await rig.keys.start()
    await rig.clock.run_for(100)
    seen = rig.keys.health()
    assert (seen.state, seen.ready, seen.age, seen.keys, seen.generation) == ("ok", True, 100, 2, 1)
    assert (seen.next_refresh_in, seen.refresher_alive, seen.fetches) == (500, True, 1)
    await rig.keys.stop()
    assert not rig.keys.health().refresher_alive


async def test_a_loopback_team_is_called_local() -> None:
    rig = KeyRig()
    local = type(rig.keys)(rig.settings.model_copy(update={"team_domain": "http://127.0.0.1:1"}))
    assert local.health().local


def test_a_health_cannot_be_changed() -> None:
    seen = KeyRig().keys.health()
    with pytest.raises(ValidationError):
        seen.ready = True
