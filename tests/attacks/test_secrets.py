"""No part of a token is written anywhere: not in logs, errors, chains of errors, or the frames of a traceback."""

import asyncio
import io
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attacks.corpus import attacks
from attacks.leaks import parts_of
from attacks.workshop import Attack, Workshop
from starlette.requests import Request

from fastapi_cloudflare_access import AccessRefused, CloudflareAccess
from fastapi_cloudflare_access.testing import LocalTeam

TEAM = LocalTeam("acme")


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


@pytest.fixture
def access() -> Iterator[CloudflareAccess[Any]]:
    access: CloudflareAccess[Any] = CloudflareAccess(team_domain=TEAM.team_domain, audience=TEAM.audience)
    with TEAM.serve(access):
        access.keys.seed(TEAM.certs_body(), fetched_at=TEAM.clock.now())
        yield access


def request_with(name: bytes, value: bytes) -> Request:
    return Request({"type": "http", "headers": [(name, value)], "method": "GET", "path": "/", "query_string": b""})


async def refused(access: CloudflareAccess[Any], request: Request) -> str:
    try:
        await access.identify(request)
    except AccessRefused as refusal:
        return collected(refusal) + repr(refusal.headers) + refusal.detail
    raise AssertionError("let in")


CARRIERS: dict[str, Callable[[bytes], tuple[bytes, bytes]]] = {
    "header": lambda token: (b"cf-access-jwt-assertion", token),
    "cookie": lambda token: (b"cookie", b"CF_Authorization=" + token.replace(b";", b",")),
}


@pytest.mark.conformance(41, 45, 53)
@pytest.mark.parametrize("carry", CARRIERS.values(), ids=CARRIERS)
def test_nothing_longer_than_12_characters_of_any_attack_is_written_anywhere(
    carry: Callable[[bytes], tuple[bytes, bytes]], access: CloudflareAccess[Any], log: Everything
) -> None:
    tried = attacks(Workshop(TEAM))

    async def scenario() -> list[str]:
        return [await refused(access, request_with(*carry(attack.token))) for attack in tried]

    written = "\n".join(asyncio.run(scenario())) + log.text.getvalue()
    assert written.count("malformed_token") > 100
    assert parts_of((attack.token for attack in telling(tried)), written.encode("utf-8", "backslashreplace")) == []


@pytest.mark.conformance(53)
def test_no_claim_and_no_key_id_of_a_token_is_written_either(access: CloudflareAccess[Any], log: Everything) -> None:
    forged = TEAM.sign(
        TEAM.user_claims("mallory@evil.example", claims={"sub": "unmistakable-sub", "note": "unmistakable-claim"}),
        header={"alg": "RS256", "kid": "unmistakable-kid\t"[:-1]},
    )
    wrong = TEAM.sign(TEAM.user_claims("mallory@evil.example", claims={"aud": ["unmistakable-aud"]}))

    async def scenario() -> list[str]:
        tokens = (forged, wrong, TEAM.sign({"type": "unmistakable-type"}), TEAM.sign({"unmistakable-name": 1}))
        return [await refused(access, request_with(*CARRIERS["header"](token.encode()))) for token in tokens]

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
