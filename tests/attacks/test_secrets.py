"""No part of a token is written anywhere: not in logs, errors, chains of errors, or the frames of a traceback."""

import asyncio
import io
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from attacks.corpus import attacks
from attacks.leaks import parts_of
from attacks.workshop import Attack, Workshop
from starlette.requests import HTTPConnection

from fastapi_cloudflare_access import AccessHTTPException, AccessWebSocketException, CloudflareAccess, _logging
from fastapi_cloudflare_access._verifier import Verifier
from fastapi_cloudflare_access.events import AccessEvent
from fastapi_cloudflare_access.testing import FakeTeam, SystemClock

TEAM = FakeTeam("acme")


class Failing(logging.Handler):
    """A handler that cannot write, and says so by an exception."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the disk is full")


class Everything(logging.Handler):
    """Keeps all that a record holds, formatted and raw."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = io.StringIO()

    def emit(self, record: logging.LogRecord) -> None:
        self.text.write(f"{self.format(record)}\n{vars(record)!r}\n")


def collected(error: BaseException) -> str:
    """What a collector of errors sends: every error of the chain, and the locals of every frame."""
    seen: list[str] = []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None:
            continue
        todo += [one.__cause__, one.__context__, getattr(one, "error", None)]
        seen += [repr(one), str(one), repr(one.args), repr(vars(one)), *traceback.format_exception(one)]
        for frame, _ in traceback.walk_tb(one.__traceback__):
            seen += [f"{name}={value!r}" for name, value in frame.f_locals.items() if ours(frame.f_globals["__name__"])]
    return "\n".join(seen)


def ours(module: str) -> bool:
    return module.startswith("fastapi_cloudflare_access")


@pytest.fixture
def log() -> Iterator[Everything]:
    root, package = logging.getLogger(), logging.getLogger("fastapi_cloudflare_access")
    everything, failing, level = Everything(), Failing(), root.level
    root.setLevel(logging.DEBUG)
    package.addHandler(everything)
    package.addHandler(failing)
    yield everything
    package.removeHandler(everything)
    package.removeHandler(failing)
    root.setLevel(level)


class Listener:
    """Keeps all that events hold, and fails each time."""

    def __init__(self) -> None:
        self.text = io.StringIO()

    def __call__(self, event: AccessEvent) -> None:
        self.text.write(f"{event!r}\n{asdict(event)!r}\n")
        raise OSError("the queue is full")


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture(params=[0, 64], ids=["no cache", "cache"])
def access(request: pytest.FixtureRequest, listener: Listener) -> Iterator[CloudflareAccess[Any]]:
    access: CloudflareAccess[Any] = CloudflareAccess(
        team_domain=TEAM.team_domain, audience=TEAM.audience, listeners=[listener], token_cache_size=request.param
    )
    with TEAM.patch(access):
        access.keys.seed(TEAM.certs_body(), fetched_at=TEAM.clock.now())
        yield access


Carrier = Callable[[bytes], HTTPConnection]


def connection(kind: str, name: bytes, value: bytes) -> HTTPConnection:
    return HTTPConnection({"type": kind, "headers": [(name, value)], "method": "GET", "path": "/", "query_string": b""})


def by_header(token: bytes) -> HTTPConnection:
    return connection("http", b"cf-access-jwt-assertion", token)


def by_cookie(token: bytes) -> HTTPConnection:
    return connection("http", b"cookie", b"CF_Authorization=" + token.replace(b";", b","))


def by_handshake(token: bytes) -> HTTPConnection:
    return connection("websocket", b"cf-access-jwt-assertion", token)


CARRIERS: dict[str, tuple[Carrier, type[Exception]]] = {
    "header": (by_header, AccessHTTPException),
    "cookie": (by_cookie, AccessHTTPException),
    "handshake": (by_handshake, AccessWebSocketException),
}


async def refused(
    access: CloudflareAccess[Any], connection: HTTPConnection, kind: type[Exception] = AccessHTTPException
) -> str:
    try:
        await access.authenticate(connection)
    except kind as refusal:
        return collected(refusal)
    raise AssertionError("let in")


async def let_in(access: CloudflareAccess[Any], carry: Carrier, token: bytes) -> None:
    """Let it in twice: the second time it is in the cache, where there is one."""
    for _ in range(2):
        assert await access.authenticate(carry(token))


@pytest.mark.conformance(41, 45, 53)
@pytest.mark.parametrize(("carry", "kind"), CARRIERS.values(), ids=CARRIERS)
def test_nothing_longer_than_12_characters_of_any_token_is_written_anywhere(
    carry: Carrier, kind: type[Exception], access: CloudflareAccess[Any], log: Everything, listener: Listener
) -> None:
    shop = Workshop(TEAM)
    tried, good = attacks(shop), (shop.good.encode(), shop.service_token())

    async def scenario() -> list[str]:
        for token in good:
            await let_in(access, carry, token)
        return [await refused(access, carry(attack.token), kind) for attack in tried]

    written = "\n".join([*asyncio.run(scenario()), log.text.getvalue(), listener.text.getvalue()])
    assert written.count("malformed_token") > 100
    assert listener.text.getvalue().count("RequestRejected") == len(tried)
    tokens = [*good, *(attack.token for attack in telling(tried))]
    assert parts_of(tokens, written.encode("utf-8", "backslashreplace")) == []


def test_13_characters_of_a_token_that_is_let_in_would_be_found(
    access: CloudflareAccess[Any], log: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Workshop(TEAM).good.encode()
    middle = len(good) // 2
    verify = Verifier._verify_at_once

    def telltale(verifier: Verifier[Any], token: bytes) -> Any:
        package = logging.getLogger("fastapi_cloudflare_access")
        _logging.log(package, logging.DEBUG, "let in: %s", token[middle : middle + 13].decode())
        return verify(verifier, token)

    monkeypatch.setattr(Verifier, "_verify_at_once", telltale)
    asyncio.run(let_in(access, by_header, good))
    assert parts_of([good], log.text.getvalue().encode()) == [good[middle : middle + 13]]


@pytest.mark.conformance(53)
def test_no_claim_and_no_key_id_of_a_token_is_written_either(access: CloudflareAccess[Any], log: Everything) -> None:
    forged = TEAM.sign(
        TEAM.user_claims("mallory@evil.example", claims={"sub": "unmistakable-sub", "note": "unmistakable-claim"}),
        header={"alg": "RS256", "kid": "unmistakable-kid\t"[:-1]},
    )
    wrong = TEAM.sign(TEAM.user_claims("mallory@evil.example", claims={"aud": ["unmistakable-aud"]}))

    async def scenario() -> list[str]:
        tokens = (forged, wrong, TEAM.sign({"type": "unmistakable-type"}), TEAM.sign({"unmistakable-name": 1}))
        return [await refused(access, by_header(token.encode())) for token in tokens]

    written = "\n".join(asyncio.run(scenario())) + log.text.getvalue()
    assert "unmistakable" not in written
    assert "mallory" not in written


def telling(tried: list[Attack]) -> Iterator[Attack]:
    """Leave out what is made of words that are written anyway, such as the cookie's name."""
    return (attack for attack in tried if b"CF_Authorization" not in attack.token)


def test_the_collector_sees_what_is_there() -> None:
    """The test above would find a token in an error, in its cause, and in a local."""

    def fail(text: str) -> None:
        try:
            raise ValueError(text)  # noqa: TRY301 - to be caught
        except ValueError as problem:
            raise RuntimeError from problem

    with pytest.raises(RuntimeError) as raised:
        fail("0123456789abcdef")
    assert parts_of([b"0123456789abcdef"], collected(raised.value).encode())
    assert parts_of([b"x" * 12 + b"y" * 12], b"--" + b"x" * 12 + b"y") == [b"x" * 12 + b"y"]
    assert not parts_of([b"x" * 12 + b"y" * 12], b"x" * 12)


PLUGIN = """
class Watch:
    def on_enter(self, *given, **options):
        print(given, options)

    def on_error(self, error):
        print(error.errors())

    def on_success(self, result): ...
    def on_exception(self, exception): ...

class Plugin:
    def new_schema_validator(self, *_):
        return (Watch(),) * 3

plugin = Plugin()
"""
VERIFYING = """
import asyncio, sys
from pydantic import TypeAdapter
from fastapi_cloudflare_access import AccessError, CloudflareAccess

async def verify_all():
    access = CloudflareAccess(team_domain="acme", audience="a" * 64)
    access.keys.seed(sys.stdin.readline().encode(), fetched_at=__import__("time").time())
    for token in sys.stdin:
        try:
            await access._authenticator.verifier.verify(token.strip().encode())
        except AccessError as refused:
            print(refused.reason)

TypeAdapter(int).validate_python(7)
asyncio.run(verify_all())
"""


def test_a_plugin_of_pydantic_is_shown_nothing_of_a_token(tmp_path: Path) -> None:
    """Such plugins log what is validated, or send it to a monitoring service."""
    distribution = tmp_path / "watch-1.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: watch\nVersion: 1\n")
    (distribution / "entry_points.txt").write_text("[pydantic]\nwatch = watch:plugin\n")
    (tmp_path / "watch.py").write_text(PLUGIN)
    team = FakeTeam("acme", audience="a" * 64, clock=SystemClock())
    good = team.user_token("ada@example.com")
    tokens = [good, good[:-9] + "=" + good[-9:], good.replace(".", ".*", 1), team.forge("expired")]
    ran = subprocess.run(
        [sys.executable, "-c", VERIFYING],
        input="\n".join([team.certs_body().decode(), *tokens]),
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "(7,)" in ran.stdout
    assert (ran.stdout.count("malformed_token"), ran.stdout.count("token_expired")) == (2, 1)
    assert "ada@example.com" in ran.stdout
    assert parts_of([token.encode() for token in tokens], ran.stdout.encode()) == []
