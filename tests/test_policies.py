"""Policies as values, and what they decide: truth tables, groups, domains, and expressions of any depth."""

import pickle
import re
from contextlib import nullcontext
from enum import StrEnum
from inspect import signature
from itertools import product
from typing import Any, Literal, Optional

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError, ServiceClaims, UserClaims, policies
from fastapi_cloudflare_access.policies import (
    Anyone,
    Claim,
    Country,
    Decision,
    Email,
    EmailDomain,
    Group,
    Policy,
    Predicate,
    ServiceToken,
)
from fastapi_cloudflare_access.policies.logic import Both, Either, Not
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch

TEAM = FakeTeam("acme")
YES, NO, UNKNOWN = Decision.ALLOW, Decision.DENY, Decision.UNKNOWN
SERVICE = TEAM.service("backup")


def user(email: str | None = "ada@acme.example", **claims: Any) -> UserClaims:
    base = TEAM.user("ada@acme.example").model_dump() | {"custom": {}, "email": email}
    return UserClaims.model_validate(base | claims)


class Fixed(Policy):
    """A policy with this decision."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision

    def _evaluate(self, subject: Any) -> Decision:
        return self.decision


AND = {
    (YES, YES): YES, (YES, UNKNOWN): UNKNOWN, (YES, NO): NO,
    (UNKNOWN, YES): UNKNOWN, (UNKNOWN, UNKNOWN): UNKNOWN, (UNKNOWN, NO): NO,
    (NO, YES): NO, (NO, UNKNOWN): NO, (NO, NO): NO,
}  # fmt: skip
OR = {
    (YES, YES): YES, (YES, UNKNOWN): YES, (YES, NO): YES,
    (UNKNOWN, YES): YES, (UNKNOWN, UNKNOWN): UNKNOWN, (UNKNOWN, NO): UNKNOWN,
    (NO, YES): YES, (NO, UNKNOWN): UNKNOWN, (NO, NO): NO,
}  # fmt: skip
NOT = {YES: NO, UNKNOWN: UNKNOWN, NO: YES}


@pytest.mark.conformance(68)
@pytest.mark.parametrize(("left", "right"), [*product(Decision, repeat=2)])
def test_and_and_or_follow_kleenes_tables(left: Decision, right: Decision) -> None:
    caller = user()
    assert (Fixed(left) & Fixed(right)).evaluate(caller) is AND[left, right]
    assert (Fixed(left) | Fixed(right)).evaluate(caller) is OR[left, right]


@pytest.mark.conformance(68)
@pytest.mark.parametrize("decision", Decision)
def test_not_follows_kleenes_table_and_only_true_admits(decision: Decision) -> None:
    assert (~Fixed(decision)).evaluate(user()) is NOT[decision]
    assert Fixed(decision)(user()) is (decision is YES)


def expressions(leaves: list[Policy]) -> st.SearchStrategy[Policy]:
    return st.recursive(
        st.sampled_from(leaves),
        lambda inner: st.one_of(
            st.builds(lambda left, right: left & right, inner, inner),
            st.builds(lambda left, right: left | right, inner, inner),
            st.builds(lambda part: ~part, inner),
        ),
        max_leaves=12,
    )


@given(expressions([Group("a"), Group("b"), Email("ada@acme.example"), Anyone(), Country("DE")]))
def test_an_expression_that_is_decided_without_groups_is_not_changed_by_them(policy: Policy) -> None:
    """What the token leaves open may be filled in either way; a decision that does not depend on it stays."""
    decided = policy.evaluate(user())
    filled = {policy.evaluate(user(custom={"groups": groups})) for groups in ([], ["a"], ["b"], ["a", "b"])}
    assert decided is UNKNOWN or filled == {decided}


@pytest.mark.conformance(69)
@given(expressions([Group("a"), Group("b"), Email("ada@acme.example"), Anyone(), Country("DE")]))
def test_a_group_claim_that_cannot_be_read_refuses_every_expression_that_asks_for_groups(policy: Policy) -> None:
    unreadable: list[Any] = [[5], {"banned": True}, [["a"]], 5, True, ["a", None], [{}], [{"id": 5}], [{"name": ["a"]}]]
    for groups in unreadable:
        decision = policy.evaluate(user(custom={"groups": groups}))
        if "Group(" in repr(policy):
            assert decision is NO


@pytest.mark.conformance(70, 106)
@pytest.mark.parametrize(
    ("claims", "decision"),
    [
        ({"custom": {"groups": ["admins"]}}, YES),
        ({"custom": {"groups": "admins"}}, YES),
        ({"custom": {"groups": "not-admins"}}, NO),
        ({"custom": {"groups": "admins,users"}}, NO),
        ({"custom": {"groups": []}}, NO),
        ({"custom": {"groups": [""]}}, NO),
        ({"custom": {"groups": {"admins"}}}, YES),
        ({"custom": {"groups": ["Admins"]}}, NO),
        ({"custom": {"groups": [{"id": "1", "name": "admins"}]}}, YES),
        ({"custom": {"groups": [{"id": "admins"}]}}, YES),
        ({"custom": {"groups": {"id": "admins", "name": None}}}, YES),
        ({"custom": {"groups": [{"id": "1", "name": "users"}, "x"]}}, NO),
        ({"custom": {"groups": None}}, UNKNOWN),
        ({"custom": {}}, UNKNOWN),
        ({}, UNKNOWN),
        ({"groups": ["admins"]}, YES),
        ({"custom": {"groups": None}, "groups": ["admins"]}, YES),
        ({"custom": {"groups": ["users"]}, "groups": ["admins"]}, NO),
    ],
)
def test_groups_are_read_from_the_first_claim_that_is_present(claims: dict[str, Any], decision: Decision) -> None:
    assert Group("admins").evaluate(user(**claims)) is decision
    assert (~Group("admins")).evaluate(user(**claims)) is NOT[decision]


def test_a_policy_that_decides_nothing_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="_evaluate"):
        type("Undecided", (Policy,), {})()


KINDS = [Policy, Both, Either, Not, Anyone, Predicate, Claim, Country, Email, EmailDomain, Group, ServiceToken]


@pytest.mark.conformance(107)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_class_of_policies_as_a_dependency_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="a policy is not a dependency"):
        FastAPI().get("/", dependencies=[Depends(kind)])(lambda: None)
    names = signature(kind.__init__).parameters
    for name in [name for name in names if name != "self" and kind in KINDS[5:]]:
        with pytest.raises(ConfigurationError, match="a policy is not a dependency"):
            FastAPI().get(f"/{{{name}}}", dependencies=[Depends(kind)])(lambda: None)


@pytest.mark.parametrize("kind", KINDS[5:], ids=lambda kind: kind.__name__)
def test_the_signature_of_a_policy_has_its_own_parameters(kind: Any) -> None:
    _, *own = signature(kind.__init__).parameters
    assert [name for name in signature(kind).parameters if name != "not_a_dependency"] == own


@pytest.mark.conformance(68)
@pytest.mark.parametrize("decision", Decision)
def test_an_identity_is_asked_only_if_the_token_leaves_the_decision_open(decision: Decision) -> None:
    asked: list[object] = []
    identity: Any = object()

    class Asking(Policy):
        def _evaluate(self, subject: Any) -> Decision:
            asked.append(subject.identity)
            return decision

    assert Asking().evaluate(user(), identity=identity) is decision
    assert asked == ([None, identity] if decision is UNKNOWN else [None])


def test_a_policy_takes_the_caller_by_name_too() -> None:
    assert Anyone().evaluate(caller=user()) is YES


def test_other_paths_for_groups_can_be_given() -> None:
    caller = user(custom={"roles": {"names": ["admins"]}, "groups": ["users"]})
    assert Group("admins").evaluate(caller, group_claims=("custom.roles.names",)) is YES
    assert Group("admins").evaluate(caller, group_claims=("email.x", "custom.groups.x", "sub")) is NO
    assert Group("admins").evaluate(caller, group_claims=("nothing.here",)) is UNKNOWN


def test_a_service_has_no_groups_and_no_address_and_its_country_is_unknown() -> None:
    banned = ServiceClaims.model_validate(SERVICE.model_dump() | {"custom": {"groups": ["admins"]}})
    assert [policy.evaluate(banned) for policy in (Group("admins"), ~Group("admins"))] == [NO, YES]
    assert [policy.evaluate(SERVICE) for policy in (Email("a@b.c"), EmailDomain("b.c"), Country("DE"))] == [
        NO,
        NO,
        UNKNOWN,
    ]
    assert (~Country("DE")).evaluate(SERVICE) is UNKNOWN


@pytest.mark.conformance(71)
@pytest.mark.parametrize(
    ("email", "decision"),
    [
        ("ada@acme.example", YES),
        ("ada@ACME.Example", YES),
        ("ada@sub.acme.example", NO),
        ("ada@evil-acme.example", NO),
        ("ada@acme.example.evil.example", NO),
        ("ada@acme.exampl", NO),
        ("ada@аcme.example", NO),  # noqa: RUF001 - a Cyrillic a
        (None, UNKNOWN),
    ],
)
def test_a_domain_matches_exactly(email: str | None, decision: Decision) -> None:
    assert EmailDomain("acme.example").evaluate(user(email)) is decision
    assert (~EmailDomain("acme.example")).evaluate(user(email)) is NOT[decision]


@pytest.mark.conformance(69)
@pytest.mark.parametrize(
    "email", ["ada@acme.example@evil.example", "a@evil.example@acme.example", "acme.example", "@acme.example",
              "ada@acme.example.", "ada@", "ada@acme..example", "ada@acme example", "ada@-acme.example", "ada@ü",
              "ada@ü..example", "x" * 300]
)  # fmt: skip
def test_what_is_not_an_address_is_refused_also_negated(email: str) -> None:
    for policy in (EmailDomain("acme.example"), Email("ada@acme.example")):
        assert (policy.evaluate(user(email)), (~policy).evaluate(user(email))) == (NO, NO)


@pytest.mark.conformance(71)
def test_international_domains_compare_as_idna_and_addresses_in_any_case() -> None:
    assert EmailDomain("büro.example") == EmailDomain("xn--bro-hoa.example") == EmailDomain("BÜRO.example")
    assert EmailDomain("büro.example").evaluate(user("ada@xn--bro-hoa.example")) is YES
    assert EmailDomain("straße.example") != EmailDomain("strasse.example")
    assert Email("Ada@Acme.Example").evaluate(user("aDA@acme.example")) is YES
    assert Email("ada@acme.example").evaluate(user("eve@acme.example")) is NO
    assert Email("k@acme.example").evaluate(user("\u212a@acme.example")) is NO, "the Kelvin sign is not a k"
    assert Email("strasse@acme.example").evaluate(user("straße@acme.example")) is NO


def test_countries_and_service_tokens() -> None:
    assert Country("de").evaluate(user(country="DE")) is YES
    assert Country("FR", "DE").evaluate(user(country="US")) is NO
    assert [Country(code).evaluate(user(country=code)) for code in ("AD", "XK", "ZA")] == [YES, YES, YES]
    assert Country("DE").evaluate(user(country=None)) is UNKNOWN
    assert ServiceToken(SERVICE.client_id).evaluate(SERVICE) is YES
    assert Claim("common_name", SERVICE.client_id).evaluate(SERVICE) is YES  # as for a client certificate
    assert ServiceToken("0123.access.example.com").evaluate(SERVICE) is NO
    assert ServiceToken("other.access").evaluate(SERVICE) is NO
    assert ServiceToken(SERVICE.client_id).evaluate(user(common_name=SERVICE.client_id)) is NO
    assert Anyone().evaluate(SERVICE) is Anyone().evaluate(user()) is YES


class Name(StrEnum):
    GROUP = "admins"
    CLIENT_ID = "0123.access"


def test_names_may_be_members_of_an_enumeration() -> None:
    assert Group(Name.GROUP).evaluate(user(groups=["admins"])) is YES
    assert ServiceToken(Name.CLIENT_ID).client_ids == ("0123.access",)


@pytest.mark.parametrize(
    ("custom", "decision"),
    [
        ({"level": 1}, YES), ({"level": "1"}, NO), ({"level": True}, NO), ({"level": 1.0}, NO),
        ({"level": [2, 1]}, YES),
        ({"level": []}, NO), ({"level": {"a": 1}}, NO), ({"level": None}, UNKNOWN), ({}, UNKNOWN),
    ],
)  # fmt: skip
def test_a_claim_compares_by_type_and_an_absent_one_is_unknown(custom: dict[str, Any], decision: Decision) -> None:
    assert Claim("custom.level", 1).evaluate(user(custom=custom)) is decision


def test_a_claim_has_a_path_of_names_with_dots_too() -> None:
    caller = user(custom={"https://acme.example/role": "admin"}, organisation={"unit": "x"})
    assert Claim(("custom", "https://acme.example/role"), "admin").evaluate(caller) is YES
    assert Claim("organisation.unit", "x", "y").evaluate(caller) is YES
    assert Claim("email", "ada@acme.example").evaluate(caller) is YES
    assert Claim("model_fields", "x").evaluate(caller) is UNKNOWN


class Directory(BaseModel):
    department: str = ""


class Open(BaseModel, extra="allow"):
    department: str = ""


class WithGroups(Directory):
    groups: Any = None


def employee(custom: Any, **config: Any) -> Any:
    return type("Employee", (UserClaims,), {"__annotations__": {"custom": custom}, "custom": None}, **config)


DROPPED = (
    "the model Directory drops the claim custom.groups, which Group('admins') reads: "
    "write groups: Any = None in Directory, or extra='allow' in its model_config"
)


@pytest.mark.parametrize(
    "custom",
    [Directory, Directory | None, Optional[Directory], Directory | WithGroups | None],  # noqa: UP045
    ids=["model", "or none", "optional", "or one that keeps it"],
)
@pytest.mark.parametrize(
    "policy", [Group("admins"), ~Group("admins"), Email("a@b.c") | Group("admins"), ~(Anyone() & Group("admins"))]
)
def test_a_policy_about_a_claim_that_the_model_of_users_drops_is_refused_where_it_is_written(
    custom: Any, policy: Policy
) -> None:
    access: Any = CloudflareAccess(team_domain="acme", audience="x", user_model=employee(custom))
    is_kept = custom == Directory | WithGroups | None
    plain: Any = CloudflareAccess(team_domain="acme", audience="x")
    either: Any = access | plain.with_audience("y")
    for one in (access, either, access.with_audience("z")):
        for make, argument in ((one.require, policy), (one.require_user, policy), (one.roles, {"admin": policy})):
            with nullcontext() if is_kept else pytest.raises(ConfigurationError, match=f"^{re.escape(DROPPED)}$"):
                make(argument)
    access.require_service(policy)
    plain.require(policy)


def test_the_field_that_a_model_lacks_is_named_also_for_a_claim_inside_it() -> None:
    access: Any = CloudflareAccess(team_domain="acme", audience="x", user_model=employee(Directory))
    write = "which Claim('custom.team.name', 'web') reads: write team: Any = None in Directory, or extra='allow'"
    with pytest.raises(ConfigurationError, match=re.escape(write)):
        access.require(Claim("custom.team.name", "web"))


@pytest.mark.parametrize(
    "custom",
    [Any, dict[str, Any], Literal["none"], Open, WithGroups, Open | None, Directory | dict[str, Any]],
    ids=range(7),
)
def test_a_policy_about_a_claim_that_the_model_of_users_keeps_is_admitted(custom: Any) -> None:
    access: Any = CloudflareAccess(team_domain="acme", audience="x", user_model=employee(custom))
    access.require(Group("admins") & Claim("other.claim", 1) & Country("DE") & EmailDomain("acme.example"))


def test_the_paths_of_groups_decide_whether_a_model_drops_them() -> None:
    options: Any = {"team_domain": "acme", "audience": "x", "user_model": employee(Directory)}
    CloudflareAccess(**options, group_claims="groups").require(Group("admins"))
    access = CloudflareAccess(**options)
    access.require(Claim("custom.department", "x"))
    with pytest.raises(
        ConfigurationError, match=r"drops the claim custom\.level, which Claim\('custom\.level', 1\) reads"
    ):
        access.require(Claim("custom.level", 1))


def test_the_default_of_a_field_in_a_model_of_the_app_is_no_claim() -> None:
    class Custom(BaseModel):
        groups: list[str] = []

    class Employee(UserClaims):
        custom: Custom = Custom()
        department: str = "sales"

    base = TEAM.user("ada@acme.example").model_dump()
    absent = Employee.model_validate(base | {"custom": {}})
    present = Employee.model_validate(base | {"custom": {"groups": []}, "department": "sales"})
    for policy in (~Group("banned"), Claim("department", "sales")):
        assert [policy.evaluate(absent), policy.evaluate(present)] == [UNKNOWN, YES]


wrong: Any = policies
"""The module without its types, for calls that a type checker refuses."""


def is_ada(claims: UserClaims) -> bool:
    return claims.email == "ada@acme.example"


def test_a_plain_function_is_a_part_of_an_expression() -> None:
    for policy in (is_ada & Anyone(), Anyone() & is_ada, is_ada | ~Anyone(), ~Anyone() | is_ada):
        assert [policy.evaluate(user()), policy.evaluate(user("eve@acme.example"))] == [YES, NO]
    assert repr(Predicate(is_ada, name="is Ada")) == "is Ada"
    assert repr(Predicate(is_ada)).endswith(".is_ada")


@pytest.mark.conformance(72)
@pytest.mark.parametrize("answer", [None, 1, "yes", [True]])
def test_a_predicate_that_fails_refuses_also_negated(answer: object, caplog: pytest.LogCaptureFixture) -> None:
    def odd(_: Any) -> Any:
        if answer is None:
            raise ValueError("secret")
        return answer

    for policy in (Predicate(odd), ~Predicate(odd), Anyone() | odd):
        assert policy.evaluate(user()) is NO
    assert "secret" not in caplog.text
    assert len(caplog.records) == 3


VALUES: list[Policy] = [
    Anyone(), Email("a@b.example"), EmailDomain("b.example"), Group("a", "b"), Country("DE"), ServiceToken("a.access"),
    Claim("custom.x", 1), Predicate(is_ada), Group("a") & Group("b"), Group("a") | Group("b"), ~Group("a"),
]  # fmt: skip


def test_policies_are_values_with_equality_hash_and_a_readable_repr() -> None:
    for one, other in product(VALUES, repeat=2):
        assert (one == other) is (one is other)
    for value in VALUES:
        copied = pickle.loads(pickle.dumps(value))  # noqa: S301 - made here
        assert (copied, hash(copied), repr(copied)) == (value, hash(value), repr(value))
        assert value.__eq__(5) in (NotImplemented, False)
    assert Group("b", "a", "a") == Group("a", "b")
    assert Claim("custom.x", 1) != Claim("custom.x", 1.0)
    assert Claim("custom.x", 1) != Claim("custom.x", 1, 2)
    assert Claim("custom.x", 1, 2) != Claim("custom.x", 1)
    assert ServiceToken("a.access", name="backup") == ServiceToken("a.access")
    assert Predicate(is_ada, name="is Ada") == Predicate(is_ada)
    assert hash(Predicate(is_ada, name="is Ada")) == hash(Predicate(is_ada))


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        (Group("a", "b"), "Group('a', 'b')"),
        (ServiceToken("b.access", "a.access"), "ServiceToken('a.access', 'b.access')"),
        (ServiceToken("a.access", name="backup"), "ServiceToken('a.access', name='backup')"),
        (Claim("custom.x", 1, "y"), "Claim('custom.x', 1, 'y')"),
        (Anyone(), "Anyone()"),
        (Group("a") & (Group("b") | ~Group("c")), "Group('a') & (Group('b') | ~Group('c'))"),
        (~(Group("a") & Group("b")) | Group("c"), "~(Group('a') & Group('b')) | Group('c')"),
    ],
)
def test_the_repr_is_what_one_would_write(policy: Policy, shown: str) -> None:
    assert repr(policy) == shown


@pytest.mark.conformance(107)
@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (wrong.Email, r"Email\(\) names nothing"),
        (lambda: wrong.Email("ada"), "Email takes addresses"),
        (lambda: wrong.Email("a@b@c.example"), "Email takes addresses"),
        (lambda: wrong.Email("a@localhost"), "Email takes addresses"),
        (lambda: wrong.EmailDomain("@acme.example"), "EmailDomain takes domains"),
        (lambda: wrong.EmailDomain("acme.example."), "EmailDomain takes domains"),
        (lambda: wrong.EmailDomain("acme"), "EmailDomain takes domains"),
        (lambda: wrong.EmailDomain("*.acme.example"), "EmailDomain takes domains"),
        (wrong.Group, r"Group\(\) names nothing: write Group\('…'\)"),
        (lambda: wrong.Group(""), "not blank"),
        (lambda: wrong.Group(" "), "not blank"),
        (lambda: wrong.Group("admins "), "no blanks around them"),
        (lambda: wrong.Group(["a"]), "Group takes text, not list"),
        (lambda: wrong.Group(5), "Group takes text, not int"),
        (lambda: wrong.Country("Germany"), "codes of two letters"),
        (lambda: wrong.Country("ÄÖ"), "codes of two letters"),
        (lambda: wrong.Country("D1"), "codes of two letters"),
        (wrong.ServiceToken, "Client IDs"),
        (lambda: wrong.ServiceToken(" a"), "Client IDs"),
        (lambda: wrong.ServiceToken("a "), "Client IDs"),
        (lambda: wrong.ServiceToken(5), "Client IDs"),
        (
            lambda: wrong.ServiceToken("cron"),
            r"^'cron' is not a Client ID, which ends with \.access: .* name='…'; for a ",
        ),
        (lambda: wrong.ServiceToken("a.access", "b.accessory"), r"^'b\.accessory' is not a Client ID"),
        (lambda: wrong.ServiceToken("x" * 99), f"^'{'x' * 60}' is not a Client ID"),
        (lambda: wrong.ServiceToken("a.access", name=" "), "name of a ServiceToken"),
        (lambda: wrong.ServiceToken("a.access", name=5), "name of a ServiceToken"),
        (lambda: wrong.Claim("custom.x"), "values that are text"),
        (lambda: wrong.Claim("custom.x", None), "values that are text"),
        (lambda: wrong.Claim("custom.x", ["a"]), "values that are text"),
        (lambda: wrong.Claim("", "a"), "a path of names"),
        (lambda: wrong.Claim("custom..x", "a"), "a path of names"),
        (lambda: wrong.Claim((), "a"), "a path of names"),
        (lambda: wrong.Predicate(5), "plain function"),
        (lambda: wrong.Predicate(is_ada, name=" "), "name of a Predicate"),
        (lambda: wrong.Predicate(is_ada, name=5), "name of a Predicate"),
        (lambda: wrong.Anyone() & "admins", "a policy is not text: write Group"),
        (lambda: wrong.Group("a") and wrong.Group("b"), "with &, | and ~, not with and, or, not"),
        (lambda: wrong.Group("a") or wrong.Group("b"), "with &, | and ~, not with and, or, not"),
        (lambda: not wrong.Group("a"), "with &, | and ~, not with and, or, not"),
    ],
    ids=range(39),
)
def test_a_policy_that_is_written_wrongly_is_refused_where_it_is_written(make: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        make()


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_no_policy_can_be_changed(value: Any) -> None:
    for name in type(value).__dataclass_fields__:
        with pytest.raises(AttributeError):
            setattr(value, name, ())


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_policy_has_no_attributes_but_its_fields(value: Any) -> None:
    assert not hasattr(value, "__dict__")


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Group("a").names = ("b",)  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue] - on purpose


def served(policy: Policy, **options: Any) -> tuple[FakeTeam, TestClient]:
    access = CloudflareAccess(
        team_domain="acme", audience=TEAM.audience, fetch=MemoryFetch(TEAM), clock=TEAM.clock, **options
    )
    app = FastAPI()
    app.get("/", dependencies=[Depends(access.require(policy))])(lambda: "ok")
    return TEAM, TestClient(app)


@pytest.mark.parametrize(
    ("custom", "status", "why"),
    [
        ({"groups": ["admins"]}, 200, None),
        ({"groups": ["users"]}, 403, "the policy Group('admins') refused the caller"),
        ({}, 403, "the policy Group('admins') needs a claim that is not known of the caller: custom.groups, groups"),
        ({"groups": [5]}, 403, "the policy Group('admins') refused the caller"),
    ],
)
def test_a_route_asks_a_policy_and_the_log_says_why_it_refused(
    custom: dict[str, Any], status: int, why: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    team, client = served(Group("admins"))
    answer = client.get("/", headers=team.headers(team.user("ada@acme.example", custom=custom)))
    assert answer.status_code == status
    assert (why in caplog.text) if why else not caplog.records
    assert "Group" not in answer.text + str(answer.headers)


def test_a_route_looks_for_groups_where_the_settings_say() -> None:
    team, client = served(Group("admins"), group_claims=["custom.roles", "custom.teams"])
    statuses = [
        client.get("/", headers=team.headers(team.user("ada@acme.example", custom=custom))).status_code
        for custom in ({"teams": ["admins"]}, {"roles": ["admins"]}, {"groups": ["admins"]})
    ]
    assert statuses == [200, 200, 403]


@pytest.mark.parametrize("paths", [[], "", "custom..groups", ".", [""], [5], 5, "a,,b", [" a"], None])
def test_group_claims_that_are_not_paths_are_refused(paths: Any) -> None:
    with pytest.raises(ConfigurationError, match="group_claims must be paths of claims"):
        CloudflareAccess(team_domain="acme", audience=TEAM.audience, group_claims=paths)


def test_group_claims_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_ACCESS_GROUP_CLAIMS", "custom.roles, groups")
    access = CloudflareAccess(team_domain="acme", audience=TEAM.audience)
    assert access.settings.group_claims == ("custom.roles", "groups")


@pytest.mark.parametrize(
    "confused",
    [
        Group("admins"), ~Group("banned"), Anyone(), Anyone, Group, Email, policies.Country, policies.EmailDomain,
        ServiceToken, Claim, Predicate, Group("a").evaluate, policies.parse_policy, policies.roles_from_file,
        policies.roles_from_environment,
    ],
    ids=lambda node: getattr(node, "__name__", repr(node)),
)  # fmt: skip
def test_a_policy_as_a_dependency_is_an_error_when_the_route_is_defined(confused: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"write Depends\(access\.require\(policy\)\)"):
        FastAPI().add_api_route("/", lambda: None, dependencies=[Depends(confused)])


@pytest.mark.parametrize("code", ["", "XX", "xx", "T1", "Germany", "D", "DÉ", "  "])
def test_what_is_no_country_is_unknown_and_not_another_country(code: str) -> None:
    assert [policy.evaluate(user(country=code)) for policy in (Country("DE"), ~Country("DE"))] == [UNKNOWN, UNKNOWN]


def test_the_unknown_country_cannot_be_named() -> None:
    with pytest.raises(ConfigurationError, match="codes of two letters"):
        Country("XX")
