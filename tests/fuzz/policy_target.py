"""What fuzzers call for policies: the texts of operators, and the claims of callers, that nothing has checked yet.

Run it with coverage guidance: `python tests/fuzz/policy_target.py tests/fuzz/policy_corpus -max_total_time=60`.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

DENY, UNKNOWN, ALLOW = range(3)
BASE: dict[str, Any] = {
    "type": "app",
    "iss": "https://acme.cloudflareaccess.com",
    "aud": ["tag"],
    "exp": 1_800_000_600,
    "iat": 1_800_000_000,
    "sub": "0e9d5c4e",
}
CLAIMS: tuple[dict[str, Any], ...] = (
    BASE
    | {"email": "ada@acme.example", "country": "DE"}
    | {"custom": {"groups": ["admins", {"id": "7", "name": "staff"}], "level": 1, "on": True, "in": ["sales", 2]}},
    BASE,
    BASE | {"sub": "", "common_name": "backup.access"},
    BASE | {"email": "no address", "custom": {"groups": [1]}, "country": "T1"},
    BASE | {"email": "Ada@acme.example", "groups": "admins", "custom": {"groups": None}, "country": "XX"},
)
"""Callers: one of whom much is known, one of whom nothing is, a service, one that is unreadable, and one between."""
MAX_BUILT = 24


class Unreadable(Exception):
    """A claim that cannot be read."""


def load() -> Callable[[bytes], None]:  # noqa: C901, PLR0915 - one function for each kind of input
    """Import the package, instrumented or not, and return the target."""
    from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
    from fastapi_cloudflare_access.errors import ConfigurationError
    from fastapi_cloudflare_access.policies import (
        Claim,
        Decision,
        Email,
        EmailDomain,
        Group,
        Policy,
        expressions,
        parse_policy,
        roles,
    )

    values = {Decision.DENY: DENY, Decision.UNKNOWN: UNKNOWN, Decision.ALLOW: ALLOW}
    callers = [(claims, (UserClaims if claims["sub"] else ServiceClaims).model_validate(claims)) for claims in CLAIMS]
    leaves = [
        parse_policy(text)
        for text in (
            "Anyone()",
            "Email('ada@acme.example', 'grace@acme.example')",
            "Email('x@other.example')",
            "EmailDomain('acme.example')",
            "EmailDomain('b\u00fccher.example')",
            "Group('admins')",
            "Group('7')",
            "Group('nobody', 'staff')",
            "Country('DE', 'FR')",
            "Country('US')",
            "ServiceToken('backup.access', name='the backup')",
            "Claim('custom.level', 1)",
            "Claim('custom.level', True, 1.0)",
            "Claim('custom.in', 'sales', -2)",
            "Claim('custom.on', True)",
            "Claim('custom.groups', 'admins')",
        )
    ]

    def evaluated(policy: Policy, choice: int) -> None:
        """Check the decision of a policy for one caller against that of plain arithmetic."""
        claims, caller = callers[choice % len(callers)]
        decision = values[policy.evaluate(caller)]
        assert decision == truth(policy, claims), f"{policy!r} for {claims}"
        assert (~policy)(caller) is (decision == DENY and is_readable(policy, claims))

    def same_again(policy: Policy, choice: int) -> None:
        """Check that the text of a policy means the same."""
        text = repr(policy)
        if len(text) <= expressions.MAX_TEXT and "ServiceToken" not in text and "Claim" not in text:
            again = parse_policy(text)
            assert repr(again) == text
            evaluated(again, choice)

    def text(data: bytes) -> None:
        policy, refusal = None, ""
        try:
            policy = parse_policy(data.decode(errors="surrogateescape"))
        except ConfigurationError as problem:
            refusal = str(problem)
        if policy is None:
            assert 0 < len(refusal) < 400, "it is more than one sentence"
            return
        evaluated(policy, len(data))
        same_again(policy, len(data))

    def built(data: bytes) -> None:
        """Build a policy as a stack machine does."""
        stack: list[Policy] = []
        for step in data[1:MAX_BUILT]:
            if step < 128 or not stack:
                stack.append(leaves[step % len(leaves)])
            elif step % 3 == 0:
                stack.append(~stack.pop())
            elif len(stack) > 1:
                right, left = stack.pop(), stack.pop()
                stack.append(left & right if step % 3 == 1 else left | right)
        if stack:
            evaluated(stack[-1], data[0])
            if data[0] > 240:
                same_again(stack[-1], data[0])

    def address(data: bytes) -> None:
        given = data.decode(errors="replace")
        normal = ""
        with suppress(ConfigurationError):
            (normal,) = Email(given).names
        if normal:
            assert Email(normal).names == (normal,)
            domain = normal.rpartition("@")[2]
            assert domain.isascii()
            assert domain == domain.lower()
            assert EmailDomain(domain).names == (domain,)
            if given.isascii():
                assert normal == given.lower()
        user = UserClaims.model_validate(BASE | {"email": given})
        known, other = Email(normal or "ada@acme.example"), Email("someone.else@other.example")
        decisions = [values[policy.evaluate(user)] for policy in (known, ~known, other, ~other)]
        if normal:
            assert decisions[:2] == [ALLOW, DENY]
        assert decisions in (
            [ALLOW, DENY, DENY, ALLOW],
            [ALLOW, DENY, ALLOW, DENY],
            [DENY] * 4,
            [DENY, ALLOW, DENY, ALLOW],
        )

    def groups(data: bytes) -> None:
        try:
            value = json.loads(data)
            user = UserClaims.model_validate(BASE | {"groups": value})
        except (ValueError, RecursionError):
            return
        for policy in (Group("admins"), ~Group("admins"), Claim("groups", "admins", 1), Group("a") | ~Group("admins")):
            assert values[policy.evaluate(user)] == truth(policy, BASE | {"groups": value}), policy

    def named(data: bytes) -> None:
        try:
            found = vars(roles)["_parse"](data.decode(errors="surrogateescape"), "ROLES")
        except ConfigurationError:
            return
        assert found
        for name, policy in found.items():
            assert name == name.strip() != ""
            evaluated(policy, len(data))

    kinds = (text, built, address, groups, named)

    def one_input(data: bytes) -> None:
        if data:
            kinds[data[0] % len(kinds)](data[1:])

    return one_input


def is_readable(policy: Any, claims: dict[str, Any]) -> bool:
    """Check whether a policy reads every claim that it asks for."""
    try:
        part(policy, claims)
    except Unreadable:
        return False
    return True


def truth(policy: Any, claims: dict[str, Any]) -> int:
    """Return the decision of a policy, written a second time."""
    try:
        return part(policy, claims)
    except Unreadable:
        return DENY


def part(policy: Any, claims: dict[str, Any]) -> int:  # noqa: PLR0911 - one for each kind
    """Return the decision of a part of a policy: the least for `&`, the greatest for `|`, the opposite for `~`."""
    match type(policy).__name__:
        case "Both":
            left, right = (part(each, claims) for each in policy.parts)
            return min(left, right)
        case "Either":
            left, right = (part(each, claims) for each in policy.parts)
            return max(left, right)
        case "Not":
            return ALLOW - part(policy.part, claims)
        case "Anyone":
            return ALLOW
        case "ServiceToken":
            return ALLOW * (claims["sub"] == "" and claims.get("common_name") in policy.client_ids)
        case "Claim":
            return of_claim(policy, claims)
        case "Country":
            return of_country(claims.get("country"), policy.names)
        case name:
            if claims["sub"] == "":
                return DENY
            return {"Group": of_groups, "Email": of_email, "EmailDomain": of_domain}[name](claims, policy.names)


def of_claim(policy: Any, claims: dict[str, Any]) -> int:
    """Return the decision by a claim."""
    value: Any = claims
    for name in policy.path:
        value = value.get(name) if isinstance(value, dict) else None
    if value is None:
        return UNKNOWN
    items = value if isinstance(value, list) else [value]
    return ALLOW * any(type(item) is type(one) and item == one for item in items for one in policy.values)


def of_country(code: Any, names: tuple[str, ...]) -> int:
    """Return the decision by a country: two letters other than XX."""
    if code is None or code == "XX" or not (len(code) == 2 and code.isascii() and code.isalpha()):
        return UNKNOWN
    return ALLOW * (code in names)


def of_groups(claims: dict[str, Any], names: tuple[str, ...]) -> int:
    """Return the decision by groups.

    Raises:
        Unreadable: A group is neither text nor an object with a name or an id.
    """
    value = claims.get("custom", {}).get("groups")
    value = claims.get("groups") if value is None else value
    if value is None:
        return UNKNOWN
    found: list[str] = []
    for group in value if isinstance(value, list) else [value]:
        given = [group] if isinstance(group, str) else group if isinstance(group, dict) else {}
        given = (
            given if isinstance(given, list) else [given[key] for key in ("id", "name") if given.get(key) is not None]
        )
        if not given or not all(isinstance(name, str) for name in given):
            raise Unreadable
        found += given
    return ALLOW * any(name in names for name in found)


def of_email(claims: dict[str, Any], names: tuple[str, ...]) -> int:
    """Return the decision by an address.

    Raises:
        Unreadable: It is not one.
    """
    address = claims.get("email")
    if address is None:
        return UNKNOWN
    if "@" not in address:
        raise Unreadable
    return ALLOW * (address.lower() in names)


def of_domain(claims: dict[str, Any], names: tuple[str, ...]) -> int:
    """Return the decision by the domain of an address."""
    decision = of_email(claims, ())
    return decision if decision == UNKNOWN else ALLOW * (claims["email"].lower().partition("@")[2] in names)


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[1])]
    from fuzz.guided import fuzz

    fuzz(load, ["claims", *(f"policies.{name}" for name in ("callers", "expressions", "logic", "reading", "roles"))])
