"""What a refusal costs: at most three times what letting in a token of the same size does; and nothing is quadratic."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attacks.corpus import attacks
from attacks.workshop import Workshop

from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access._verification.request_token import MAX_COOKIES, MAX_MENTIONS, find_token, short_digest
from fastapi_cloudflare_access._verification.strict import EncodingProblem, parse_json_object
from fastapi_cloudflare_access.errors import AccessError
from fastapi_cloudflare_access.testing import FakeTeam

TEAM = FakeTeam("acme")
TIMES_DEARER = 3
SMALL, LARGE = 2_000, 16_000


def cheapest(call: Callable[[bytes], object], data: bytes, tries: int = 5) -> float:
    """The least CPU time of several tries: other work on the machine only ever adds."""
    spent: list[float] = []
    for _ in range(tries):
        began = time.process_time_ns()
        call(data)
        spent.append((time.process_time_ns() - began) / 1e9)
    return min(spent)


@pytest.fixture(scope="module")
def verify() -> Callable[[bytes], None]:
    access: CloudflareAccess[Any] = CloudflareAccess(
        team_domain="acme", audience=TEAM.audience, clock=TEAM.clock, token_cache_size=0
    )
    access.keys.seed(TEAM.certs_body(), fetched_at=TEAM.clock.now())

    def verify(token: bytes) -> None:
        coroutine = access._authenticator.verifier.verify(token)
        try:
            coroutine.send(None)
        except (AccessError, StopIteration):
            return
        finally:
            coroutine.close()

    asyncio.run(asyncio.sleep(0))
    return verify


def filled(size: int) -> bytes:
    """A token of about this size that is let in, and as cheap as that goes: the rest is one long text."""
    text = "x" * max(0, (size - 1000) * 3 // 4)
    return TEAM.sign(TEAM.user_claims("ada@example.com", claims={"x": text})).encode()


def test_no_attack_costs_three_times_what_a_token_of_its_size_does_that_is_let_in(
    verify: Callable[[bytes], None],
) -> None:
    tried = [attack for attack in attacks(Workshop(TEAM)) if attack.name != "kit: unknown_kid"]  # which has it fetched
    sizes = range(1000, 17_000, 1000)
    let_in = {size: filled(size) for size in sizes}
    allowed = {size: TIMES_DEARER * cheapest(verify, token, 20) for size, token in let_in.items()}
    dear = [attack for attack in tried if cheapest(verify, attack.token, 3) > allowed[rounded(attack.token)]]
    dear = [attack for attack in dear if cheapest(verify, attack.token, 50) > allowed[rounded(attack.token)]]
    assert [attack.name for attack in dear] == []


def rounded(token: bytes) -> int:
    """The size to compare with: to the next thousand, and at most the largest."""
    return min(-(-len(token) // 1000) * 1000, 16_000)


GROWING: dict[str, Callable[[int], bytes]] = {
    "text that never closes": lambda size: b"[" * 20 + b'"' + b'\\"' * (size // 2),
    "text that ends with a backslash": lambda size: b"[" * 20 + b'"' + b'\\"' * (size // 2) + b"\\",
    "many short texts": lambda size: b'{"a":[[[[[[[[[[[[[[[[[' + b'"",' * (size // 3),
    "brackets that open": lambda size: b"[" * size,
    "brackets that close": lambda size: b'{"a":' + b"]" * size,
    "brackets in pairs": lambda size: b'{"a":[' + b"[]," * (size // 3) + b"[]]}",
    "escapes": lambda size: b'{"a":"' + b"\\u0041" * (size // 6) + b'"}',
    "numbers": lambda size: b'{"a":[' + b"1," * (size // 2) + b"1]}",
    "names": lambda size: b"{" + b",".join(b'"%d":1' % number for number in range(size // 8)) + b"}",
    "white space": lambda size: b" " * size + b"{" + b"\n" * size + b"x",
}


@pytest.mark.conformance(6)
@pytest.mark.parametrize("make", GROWING.values(), ids=GROWING)
def test_reading_json_takes_time_in_proportion_to_its_length(make: Callable[[int], bytes]) -> None:
    def read(text: bytes) -> None:
        try:
            parse_json_object(text)
        except EncodingProblem:
            return

    small, large = make(SMALL), make(LARGE)
    small_time, large_time = cheapest(read, small, 15), cheapest(read, large, 15)
    assert large_time < 3 * (LARGE / SMALL) * small_time + 0.001


NAME = b"CF_Authorization"
JARS: dict[str, bytes] = {
    "semicolons": b";",
    "spaces": b" ",
    "both": b"; ",
    "cookies of others": b"a=b;",
    "the name": NAME,
    "the name, again and again": NAME + b";",
    "nearly the name": NAME[:-1],
    "the name with a wrong letter inside": NAME[:7] + b"X" + NAME[8:],
    "the name behind its first letter": NAME[1:],
}
ENDS: dict[str, tuple[bytes, bytes]] = {
    "alone": (b"", b""),
    "before the name": (b"", NAME),
    "before a value": (b"", b";" + NAME + b"=x"),
    "behind the name": (NAME, b""),
    "as a value": (NAME + b"=", b""),
    "before the end of a value": (NAME + b"=", b"x"),
}


def jars() -> Iterator[tuple[str, bytes]]:
    for name, piece in JARS.items():
        for place, (before, behind) in ENDS.items():
            times = (MAX_COOKIES - 1 - len(before) - len(behind)) // len(piece)
            yield f"{name} {place}", before + piece * times + behind
    many = MAX_MENTIONS - 1
    yield "as many names as are read", (b" " * (MAX_COOKIES // many - len(NAME) - 2) + NAME + b";") * many
    yield "as many values as are read", (NAME + b"=" + b" " * (MAX_COOKIES // many - len(NAME) - 3) + b"x;") * many


@pytest.mark.conformance(45)
def test_no_cookies_cost_three_times_what_one_with_a_token_does_that_is_let_in(
    verify: Callable[[bytes], None],
) -> None:
    def answer(jar: bytes) -> None:
        try:
            token = find_token([(b"cookie", jar)], ("header", "cookie"))
        except AccessError:
            return
        if token is not None:
            short_digest(token)
            verify(token)

    let_in = NAME + b"=" + filled(1000)
    allowed = TIMES_DEARER * cheapest(answer, let_in, 50)
    dear = [(name, jar) for name, jar in jars() if cheapest(answer, jar) > allowed]
    assert [name for name, jar in dear if cheapest(answer, jar, 50) > allowed] == []


def test_a_digest_of_8_mb_costs_no_more_than_one_of_16_kib() -> None:
    token = b"x" * 8_000_000
    assert short_digest(token) == short_digest(token[: 16 * 1024])
    assert cheapest(short_digest, token) < 0.001
