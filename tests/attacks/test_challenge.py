"""What a refusal writes into response headers, whatever the error says."""

import re
from collections.abc import Iterator

import pytest

from fastapi_cloudflare_access import AccessHTTPException
from fastapi_cloudflare_access.errors import AccessError, AuthorizationError, CredentialError, TemporarilyUnavailable

QUOTED = r'"[ !#-\[\]-~]*"'
"""A quoted string of RFC 9110 section 5.6.4 in which nothing is escaped."""
CHALLENGE = re.compile(rf"Cloudflare-Access(?: \w+={QUOTED}(?:, \w+={QUOTED})*)?")
HOSTILE = 'x" , realm="evil\\\r\nSet-Cookie: a=b'


def errors(kind: type[AccessError]) -> Iterator[type[AccessError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from errors(one)


@pytest.mark.conformance(45, 47)
@pytest.mark.parametrize(
    "kind",
    [one for kind in (CredentialError, AuthorizationError, TemporarilyUnavailable) for one in errors(kind)],
    ids=lambda kind: kind.__name__,
)
def test_a_response_header_holds_fixed_text_that_needs_no_escaping(kind: type[AccessError]) -> None:
    refused = AccessHTTPException(kind(HOSTILE), auth_scheme="Cloudflare-Access")
    headers = dict(refused.headers or {})
    assert CHALLENGE.fullmatch(headers.pop("WWW-Authenticate", "Cloudflare-Access"))
    assert not re.search(r'[^ -~]|evil|["\\]', "".join(headers.values()))
