"""The policies of an app admit or reject callers."""

import pytest

from fastapi_cloudflare_access.local.config import App, Person, Policy
from fastapi_cloudflare_access.local.policies import admits_person, admits_service, bypass_policy, has_login

ADA = Person(email="ada@example.com", groups=("admins", "staff"))


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ([Policy(everyone=True)], True),
        ([Policy(emails=("ada@example.com",))], True),
        ([Policy(emails=("bob@example.com",))], False),
        ([Policy(domains=("example.com",))], True),
        ([Policy(domains=("ample.com",))], False),
        ([Policy(groups=("staff",))], True),
        ([Policy(groups=("guests",))], False),
        ([Policy(decision="deny", groups=("staff",)), Policy(everyone=True)], False),
        ([Policy(everyone=True), Policy(decision="deny", groups=("staff",))], True),
        ([Policy(decision="service_auth", everyone=True)], False),
    ],
    ids=[str(number) for number in range(10)],
)
def test_the_first_policy_that_includes_a_person_decides(policies: list[Policy], *, expected: bool) -> None:
    assert admits_person(App(name="app", policies=tuple(policies)), ADA) is expected


def test_only_service_auth_policies_apply_to_service_tokens() -> None:
    named = App(name="a", policies=(Policy(decision="service_auth", service_tokens=("x",)),))
    every = App(name="a", policies=(Policy(decision="service_auth", everyone=True),))
    people = App(name="a", policies=(Policy(everyone=True),))
    assert [admits_service(app, "x") for app in (named, every, people)] == [True, True, False]
    assert [admits_service(app, "y") for app in (named, every, people)] == [False, True, False]


def test_a_login_needs_an_allow_policy_and_a_bypass_needs_no_login() -> None:
    bypassed = App(name="a", policies=(Policy(decision="bypass", everyone=True),))
    assert (bypass_policy(bypassed) is not None, has_login(bypassed)) == (True, False)
    assert (bypass_policy(App(name="a")) is not None, has_login(App(name="a"))) == (False, True)
