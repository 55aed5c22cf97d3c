"""Finding the token among the headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cloudflare_access._verification.request_token import (
    MAX_COOKIES,
    MAX_DIGESTED,
    MAX_MENTIONS,
    find_token,
    other_credentials,
    short_digest,
    unread_source,
    without_credentials,
)
from fastapi_cloudflare_access.errors import AmbiguousToken, MalformedToken
from fastapi_cloudflare_access.settings import TokenSource

HEADER = b"cf-access-jwt-assertion"
BOTH: tuple[TokenSource, ...] = ("header", "cookie")


@pytest.mark.conformance(43, 48)
@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([], None),
        ([(b"host", b"x")], None),
        ([(HEADER, b"h")], b"h"),
        ([(b"cookie", b"CF_Authorization=c")], b"c"),
        ([(b"cookie", b"a=b; CF_Authorization=c; d=e")], b"c"),
        ([(b"cookie", b"a=b;CF_Authorization=c")], b"c"),
        ([(b"cookie", b" CF_Authorization = c ")], b"c"),
        ([(b"cookie", b"a=b"), (b"cookie", b"CF_Authorization=c")], b"c"),
        ([(b"cookie", b"CF_Authorization=c; CF_Authorization=c")], b"c"),
        ([(b"cookie", b"CF_Authorization=c==")], b"c=="),
        ([(b"cookie", b'CF_Authorization="c\\056d"')], b'"c\\056d"'),
        ([(b"cookie", b"cf_authorization=c; CF_Authorization2=d; xCF_Authorization=e; CF-Authorization=f")], None),
        ([(b"cookie", b"CF_AppSession=x")], None),
        ([(b"cookie", b"CF_Authorization")], b""),
        ([(b"authorization", b"Bearer t"), (b"cf_access_jwt_assertion", b"t"), (b"cf-access-token", b"t")], None),
        ([(b"cf-access-authenticated-user-email", b"ada@example.com")], None),
    ],
)
def test_the_token_is_what_the_header_or_the_cookie_says_to_the_byte(
    headers: list[tuple[bytes, bytes]], token: bytes | None
) -> None:
    if token == b"":
        with pytest.raises(MalformedToken):
            find_token(headers, BOTH)
    else:
        assert find_token(headers, BOTH) == token


@pytest.mark.parametrize(
    "jar", [b"", b"CF_Authorization=c", b"CF_Authorization=c; CF_Authorization=d", b"x" * (MAX_COOKIES + 1)]
)
def test_where_the_header_is_there_the_cookies_do_not_count(jar: bytes) -> None:
    assert find_token([(b"cookie", jar), (HEADER, b"h")], BOTH) == b"h"


@pytest.mark.parametrize("jar", [b"", b"CF_Authorization=c"])
def test_an_empty_header_is_malformed_and_not_absent(jar: bytes) -> None:
    with pytest.raises(MalformedToken):
        find_token([(HEADER, b""), (b"cookie", jar)], BOTH)


@pytest.mark.conformance(43)
@pytest.mark.parametrize("values", [(b"a", b"b"), (b"a", b"a"), (b"", b"a"), (b"a", b"a", b"a")])
def test_more_than_one_header_is_ambiguous_even_where_they_agree(values: tuple[bytes, ...]) -> None:
    with pytest.raises(AmbiguousToken):
        find_token([(HEADER, value) for value in values], BOTH)


@pytest.mark.conformance(43)
@pytest.mark.parametrize(
    "jars",
    [
        (b"CF_Authorization=c; CF_Authorization=d",),
        (b"CF_Authorization=c", b"CF_Authorization=d"),
        (b"CF_Authorization=c; CF_Authorization=",),
    ],
)
def test_cookies_with_different_values_are_ambiguous(jars: tuple[bytes, ...]) -> None:
    with pytest.raises(AmbiguousToken):
        find_token([(b"cookie", jar) for jar in jars], BOTH)


def test_cookies_are_searched_up_to_a_limit() -> None:
    cookie = b"CF_Authorization=c; "
    at_limit = [(b"cookie", cookie), (b"cookie", b"x" * (MAX_COOKIES - len(cookie) - 2))]
    assert find_token(at_limit, BOTH) == b"c"
    for more in ((b"cookie", b""), (b"cookie", b"x")):
        with pytest.raises(MalformedToken):
            find_token([*at_limit, more], BOTH)


@pytest.mark.parametrize("mention", [b"CF_Authorization=c", b"a=CF_Authorization", b"CF_Authorization2"])
def test_cookies_that_mention_the_name_are_read_up_to_a_number(mention: bytes) -> None:
    at_limit = [(b"cookie", b"CF_Authorization=c"), *[(b"cookie", mention)] * (MAX_MENTIONS - 1)]
    assert find_token(at_limit, BOTH) == b"c"
    with pytest.raises(MalformedToken):
        find_token([*at_limit, (b"cookie", mention)], BOTH)


@given(st.lists(st.sampled_from([b"CF_Authorization", b"=", b";", b" ", b"\t", b"x", b"CF_", b'"']), max_size=12))
def test_the_cookies_are_those_of_a_plain_reader_of_pairs(parts: list[bytes]) -> None:
    jar = b"".join(parts)
    pairs = (pair.partition(b"=") for pair in jar.split(b";"))
    values = {value.strip(b" \t") for name, _, value in pairs if name.strip(b" \t") == b"CF_Authorization"}
    if len(values) > 1:
        with pytest.raises(AmbiguousToken):
            find_token([(b"cookie", jar)], BOTH)
    elif values == {b""}:
        with pytest.raises(MalformedToken):
            find_token([(b"cookie", jar)], BOTH)
    else:
        assert find_token([(b"cookie", jar)], BOTH) == (values.pop() if values else None)


def test_the_limits_are_32_kib_of_cookies_16_mentions_and_16_kib_of_a_digest() -> None:
    assert (MAX_COOKIES, MAX_MENTIONS, MAX_DIGESTED) == (32_768, 16, 16_384)


@pytest.mark.parametrize("name", [b"accept", b"cookie2", b"set-cookie", b"x-cookie"])
def test_a_header_of_another_name_holds_no_cookies(name: bytes) -> None:
    assert find_token([(name, b"CF_Authorization=c")], BOTH) is None


def test_sources_narrow_what_is_looked_at() -> None:
    headers = [(HEADER, b"h"), (HEADER, b"h2"), (b"cookie", b"CF_Authorization=c")]
    assert find_token(headers, ("cookie",)) == b"c"
    assert find_token(headers[2:], ("header",)) is None


def test_a_digest_is_short_and_is_not_the_token() -> None:
    assert short_digest(b"token") == "3c469e9d6c58"


def test_without_credentials_the_token_is_in_no_header() -> None:
    kept = [(b"accept", b"*/*"), (b"cookie", b"theme=dark; lang=en"), (b"x-cf-authorization", b"x")]
    names = (b"authorization", b"cf-access-jwt-assertion", b"cf-access-token", b"cf-access-client-secret")
    assert without_credentials([*kept, *((name, b"secret") for name in names), *kept]) == [*kept, *kept]


@pytest.mark.parametrize(
    ("jar", "others"),
    [
        (b"CF_Authorization=secret", b""),
        (b"a=b; CF_Authorization=secret; c=d", b"a=b; c=d"),
        (b"CF_Authorization=secret;CF_Authorization=secret; a=b", b"a=b"),
        (b'a="; CF_Authorization=secret; "', b'a="; "'),
        (b" CF_Authorization = secret ;a", b"a"),
        (b"XCF_Authorization=secret; CF_AuthorizationX=secret; a=CF_Authorization", b""),
    ],
)
def test_without_credentials_other_cookies_stay(jar: bytes, others: bytes) -> None:
    assert without_credentials([(b"cookie", jar)]) == ([(b"cookie", others)] if others else [])


@given(
    st.lists(st.sampled_from([b"CF_Authorization", b"=", b";", b" ", b"secret", b'"', b"a", b",", b"\t"]), max_size=30)
)
def test_without_credentials_no_reader_finds_a_token(parts: list[bytes]) -> None:
    headers = without_credentials([(b"cookie", b"".join(parts)), (b"cookie", b"".join(parts))])
    assert find_token(headers, ("header", "cookie")) is None
    assert all(b"CF_Authorization" not in value for _, value in headers)


@pytest.mark.parametrize(
    ("header", "note"),
    [
        (b"authorization", "; Authorization is not read, since Access sends Cf-Access-Jwt-Assertion"),
        (b"cf-access-token", "; Cf-Access-Token is not read, since Access sends Cf-Access-Jwt-Assertion"),
        (
            b"cf-access-client-secret",
            "; Cf-Access-Client-Secret is not read, since Access sends Cf-Access-Jwt-Assertion",
        ),
        (b"cookie", ""),
        (b"x-authorization", ""),
    ],
)
def test_a_header_with_another_credential_is_named_without_its_value(header: bytes, note: str) -> None:
    assert other_credentials([(b"host", b"x"), (header, b"a secret")]) == note


@pytest.mark.parametrize(
    ("headers", "sources", "sentence"),
    [
        ([(b"cookie", b"CF_Authorization=c")], ("header",), "the cookie CF_Authorization is present, and"),
        ([(b"cookie", b"a=b")], ("header",), None),
        ([(b"accept", b"CF_Authorization=c")], ("header",), None),
        ([(b"set-cookie", b"CF_Authorization=c")], ("header",), None),
        ([(HEADER, b"h")], ("cookie",), "the header Cf-Access-Jwt-Assertion is present, and"),
        ([(b"accept", b"h")], ("cookie",), None),
        ([(b"host", b"h")], ("cookie",), None),
        ([(HEADER, b"h"), (b"cookie", b"CF_Authorization=c")], BOTH, None),
    ],
)
def test_a_token_in_the_place_that_is_not_read_is_named(
    headers: list[tuple[bytes, bytes]], sources: tuple[TokenSource, ...], sentence: str | None
) -> None:
    said = unread_source(headers, sources)
    assert said is None if sentence is None else f"{sentence} token_sources does not read it" in str(said)
