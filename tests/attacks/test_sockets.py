"""Every attack over a real socket, on uvicorn with h11 and with httptools, and on Hypercorn."""

import base64
import os
import re
from collections.abc import Iterator

import pytest
from attacks.conftest import Target
from attacks.corpus import attacks
from attacks.leaks import parts_of
from attacks.odd import Odd, cookie, header, odd_requests
from attacks.wire import Answer, request
from attacks.workshop import Attack

from fastapi_cloudflare_access._requests.responses import _FAULTS

Wrong = Iterator[tuple[str, tuple[object, ...]]]
DESCRIPTIONS = {f'{{"detail":"{description}"}}'.encode() for _, description in _FAULTS.values()}
COOKIE_VALUE = re.compile(rb"[!-+\--:<-~]+")
"""What fits into a cookie unquoted, as far as servers let it through."""


def expected(odd: Odd, kind: str) -> tuple[int, str]:
    return odd.answer if isinstance(odd.answer, tuple) else odd.answer[kind]


def strange(answer: Answer) -> bool:
    """Tell whether a refusal by the app is not one of the few texts it may be."""
    return (
        bool(answer.reason)
        and answer.status in (401, 403, 503)
        and bool(answer.body)
        and answer.body not in DESCRIPTIONS
    )


@pytest.mark.conformance(1, 2, 3, 5, 6, 7, 8, 9, 10, 40, 41, 43, 45, 48, 53)
def test_no_attack_passes_and_each_gets_exactly_its_answer(target: Target) -> None:
    tokens = attacks(target.shop)
    odd = odd_list(target)
    wrong = dict(by_header(target, tokens)) | dict(by_cookie(target, tokens)) | dict(by_request(target, odd))
    assert wrong == {}
    assert len({attack.token for attack in tokens}) + len({one.data for one in odd}) >= 400
    nothing_fetched(target)
    nothing_written(target, tokens)


def odd_list(target: Target) -> list[Odd]:
    shop = target.shop
    return list(odd_requests(shop.good.encode(), shop.service_token(), shop.signed(type="org")))


def in_pieces(target: Target, answer: Answer, data: bytes) -> bool:
    """Tell whether the server refused it for coming in pieces: uvicorn with h11 keeps 16 KiB of a head at most."""
    return target.kind == "h11" and len(data) > 16_384 and (answer.status, answer.reason) == (400, "")


def by_header(target: Target, tokens: list[Attack]) -> Wrong:
    for attack in tokens:
        answer = target.connection.ask(data := request(header(attack.token)))
        if in_pieces(target, answer, data):
            continue
        if (answer.status, answer.reason) != (401, attack.reason) or strange(answer):
            yield f"header: {attack.name}", (answer.status, answer.reason, attack.reason)


def by_cookie(target: Target, tokens: list[Attack]) -> Wrong:
    for attack in tokens:
        if not COOKIE_VALUE.fullmatch(attack.token):
            continue
        answer = target.connection.ask(data := request(cookie(attack.token)))
        if in_pieces(target, answer, data):
            continue
        if (answer.status, answer.reason) != (401, attack.reason) or strange(answer):
            yield f"cookie: {attack.name}", (answer.status, answer.reason, attack.reason)


def by_request(target: Target, odd: list[Odd]) -> Wrong:
    for one in odd:
        answer = target.connection.ask(one.data, head=one.head)
        wanted = expected(one, target.kind)
        hung_up = not answer.status and wanted[0] in (400, 431)  # before all of it was sent
        if (
            not hung_up
            and not in_pieces(target, answer, one.data)
            and ((answer.status, answer.reason) != wanted or strange(answer))
        ):
            yield one.name, (answer.status, answer.reason, wanted)


def nothing_fetched(target: Target) -> None:
    """No header caused a fetch: the trap got no request, and the certs endpoint few."""
    target.trap.settimeout(0)
    with pytest.raises(BlockingIOError):
        target.trap.accept()
    assert len(target.certs.requests) <= 4


def nothing_written(target: Target, tokens: list[Attack]) -> None:
    """No part of a token and no claim is in the log, which was written at DEBUG with a failing handler beside."""
    log = target.log.read_bytes()
    assert b"malformed_token" in log
    assert b"Traceback" not in log
    assert parts_of((attack.token for attack in tokens), log) == []
    assert target.shop.claims["sub"].encode() not in log
    assert target.shop.claims["email"].encode() not in log


@pytest.mark.conformance(50)
def test_a_websocket_handshake_is_refused_as_a_request_is(target: Target) -> None:
    tokens = [attack for attack in attacks(target.shop) if COOKIE_VALUE.fullmatch(attack.token)][::12]
    assert len(tokens) > 40
    wrong = {}
    for attack in tokens:
        answer = target.connection.ask(handshake(header(attack.token)))
        target.connection.close()
        if (answer.status, answer.reason) != (401, attack.reason) or strange(answer):
            wrong[attack.name] = answer.status, answer.reason, attack.reason
    assert wrong == {}
    assert target.connection.ask(handshake(header(target.shop.good.encode()))).status == 101


def handshake(*fields: bytes) -> bytes:
    key = base64.b64encode(os.urandom(16))
    upgrade = (
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + key,
    )
    return request(*upgrade, *fields, path=b"/socket")


@pytest.mark.conformance(45)
def test_nothing_of_one_request_is_left_for_the_next_on_the_same_connection(target: Target) -> None:
    ada = target.shop.good.encode()
    sub = target.shop.claims["sub"].encode()
    asked = [request(header(ada), path=b"/optional"), request(path=b"/optional"), request(header(ada)), request()]
    target.connection.close()
    answers = target.connection.pipeline(asked)
    assert [answer.status for answer in answers] == [200, 200, 200, 401]
    assert answers[0].body == b'["%b","%b"]' % (sub, sub)
    assert answers[1].body == b"[null,null]"
