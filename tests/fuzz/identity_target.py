"""What fuzzers call for get-identity: its answers of any status, and what policies make of an identity.

Run it with coverage guidance: `python tests/fuzz/identity_target.py tests/fuzz/identity_corpus -max_total_time=60`.
"""

import json
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

USER = "0e9d5c4e"
URL = "https://acme.cloudflareaccess.com/cdn-cgi/access/get-identity"
TEXTS = {
    "email", "name", "id", "account_id", "ip", "auth_status", "common_name", "service_token_id", "gateway_account_id",
    "device_id",
}  # fmt: skip
FLAGS = {"service_token_status", "is_warp", "is_gateway"}
NUMBERS = {"iat", "version"}
OBJECTS = {"oidc_fields", "saml"}
ANYTHING = {"groups", "device_sessions", "devicePosture", "mtls_auth"}
STATUSES = (200, 400, 401, 403, 404, 429, 500, 503, 301, 204, 100, 99, 600)
MEMBERS = (
    "email", "name", "id", "groups", "amr", "idp", "geo", "oidc_fields", "saml", "iat", "ip", "is_warp", "version",
    "device_sessions", "mtls_auth", "service_token_status", "extra", "err", "user_uuid",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, 0, 1.5, -1, 2**63, "", "admins", "ada@acme.example", "a@b@c", "DE", "XX", [], ["admins"], ["pwd", 1],
    [{"id": "7", "name": "admins"}], [{"email": "x"}], {}, {"country": "DE"}, {"country": 5}, {"groups": "admins"},
    {"groups": ["admins", {"name": None}], "level": 1}, {"id": "x", "type": "oidc"}, [[]], "1.5",
)  # fmt: skip


def load() -> Callable[[bytes], None]:  # noqa: C901, PLR0915 - one function for each kind of input
    """Import the package, instrumented or not, and return the target."""
    from fuzz.guided import finish
    from fuzz.policy_target import ALLOW, BASE, DENY, UNKNOWN, Unreadable, of_groups

    from fastapi_cloudflare_access._identity import document
    from fastapi_cloudflare_access._keys.document import FetchProblem
    from fastapi_cloudflare_access.claims import UserClaims
    from fastapi_cloudflare_access.identity import Geo, Identity, IdentityProvider
    from fastapi_cloudflare_access.policies import Claim, Country, Decision, Email, EmailDomain, Group
    from fastapi_cloudflare_access.protocols import FetchResponse

    user = UserClaims.model_validate(BASE | {"sub": USER})
    policies = [Group("admins"), Email("ada@acme.example"), EmailDomain("b.c"), Country("DE"), Claim("custom.level", 1)]
    values = {Decision.DENY: DENY, Decision.UNKNOWN: UNKNOWN, Decision.ALLOW: ALLOW}

    async def body_of(data: bytes) -> AsyncGenerator[bytes]:
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    def asked(status: int, body: bytes, encoding: str | None = None) -> Any:
        """Return the answer to one question, or the problem."""

        @asynccontextmanager
        async def fetch(url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:
            assert url == URL
            assert headers["Cookie"] == "CF_Authorization=e30.e30.e30"
            given = {} if encoding is None else {"content-encoding": encoding}
            yield FetchResponse(status, given, body_of(body))

        try:
            return finish(document.ask(fetch, URL, b"e30.e30.e30", user_id=USER))
        except FetchProblem as problem:
            return problem

    def response(data: bytes) -> None:
        status, encoding = STATUSES[data[0] % len(STATUSES)] if data else 200, data[:1] > b"\xf0"
        body = data[1:]
        answer = asked(status, body, "gzip" if encoding else None)
        if isinstance(answer, FetchProblem):
            assert len(str(answer)) < 200  # fixed words
            assert isinstance(answer, document.WrongAnswer) is not (status == 429 or status >= 500)
            return
        identity, size = answer
        assert size == len(body) <= document.MAX_IDENTITY
        found = json.loads(body)
        if identity is None:
            assert (status, found["err"]) == (400, "no app token set")
        else:
            assert status == 200
            right(found, identity)

    def accepted(data: bytes) -> None:
        body = b'{"user_uuid": "%s", %s' % (USER.encode(), data)
        answer = asked(200, body)
        if not isinstance(answer, FetchProblem):
            right(json.loads(body), answer[0])

    def made(data: bytes) -> None:
        """Make a document of members and values that each pair of bytes chooses."""
        pairs = zip(data[::2], data[1::2], strict=False)
        members = {MEMBERS[name % len(MEMBERS)]: VALUES[value % len(VALUES)] for name, value in pairs}
        found = {"user_uuid": USER, **members}
        answer = asked(200, json.dumps(found).encode())
        assert isinstance(answer, document.WrongAnswer) is (found["user_uuid"] != USER)
        if not isinstance(answer, FetchProblem):
            right(found, answer[0])

    def right(found: dict[str, Any], identity: Identity) -> None:
        """Check an identity against every rule of the fields, written a second time."""
        assert found["user_uuid"] == identity.user_uuid == USER
        for name in Identity.model_fields:
            value, given = getattr(identity, name), found.get(name)
            if name == "idp":
                right_part(value, given, IdentityProvider, ("id", "type"))
            elif name == "geo":
                right_part(value, given, Geo, ("country",))
            else:
                assert plain(value) == (given if fits(name, given) else None), name
        extra = identity.model_extra or {}
        assert {name: plain(value) for name, value in extra.items()} == {
            name: value for name, value in found.items() if name not in Identity.model_fields
        }
        identity.model_dump_json()
        decided(found, identity)

    def right_part(value: Any, given: Any, kind: type[Any], names: tuple[str, ...]) -> None:
        if not isinstance(given, dict):
            assert value is None
            return
        assert type(value) is kind
        for name in names:
            assert getattr(value, name) == (given.get(name) if isinstance(given.get(name), str) else None)

    def decided(found: dict[str, Any], identity: Identity) -> None:
        """Check that policies decide by an identity, and by its groups as they should."""
        policy = policies[len(found) % len(policies)]
        decision = policy.evaluate(user, identity=identity)
        assert isinstance(decision, Decision)
        if (~policy).evaluate(user, identity=identity) is Decision.ALLOW:
            assert decision is Decision.DENY
        custom = next(
            (given for name in ("oidc_fields", "saml") if (given := groups_in(found.get(name))) is not None), None
        )
        try:
            expected = of_groups({"custom": {"groups": custom}, "groups": found.get("groups")}, ("admins",))
        except Unreadable:
            expected = DENY
        assert values[policies[0].evaluate(user, identity=identity)] == expected

    kinds = (response, accepted, made)

    def one_input(data: bytes) -> None:
        if data:
            kinds[data[0] % len(kinds)](data[1:])

    return one_input


def groups_in(members: Any) -> Any:
    """Return the groups among the members of an object."""
    return members.get("groups") if isinstance(members, dict) else None


def fits(name: str, value: Any) -> bool:
    """Check whether the value of a field is of the type that is documented."""
    if name in TEXTS:
        return isinstance(value, str)
    if name in FLAGS:
        return isinstance(value, bool)
    if name in NUMBERS:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if name in OBJECTS:
        return isinstance(value, dict)
    if name == "amr":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return name in ANYTHING or name == "user_uuid"


def plain(value: Any) -> Any:
    """Return lists and dicts for their immutable kinds."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[1])]
    from fuzz.guided import fuzz

    fuzz(load, ["identity", "_identity.document", "_verification.strict", "policies.reading", "policies.callers"])
