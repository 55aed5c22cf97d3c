"""Roles, and policies as text: read from code, from a file, from the environment, with the same checks."""

import pickle
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cloudflare_access import CloudflareAccess, ConfigurationError
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
    parse_policy,
    roles_from_environment,
    roles_from_file,
)
from fastapi_cloudflare_access.policies import expressions as text_module
from fastapi_cloudflare_access.policies.roles import NamedRoles
from fastapi_cloudflare_access.testing import FakeTeam

ACCESS = CloudflareAccess(team_domain="acme", audience="tag")


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("Group('admins')", Group("admins")),
        (" Group('a', 'b') | Email('root@acme.example') ", Group("a", "b") | Email("root@acme.example")),
        ("Group('a') & ~Country('DE') | Anyone()", Group("a") & ~Country("DE") | Anyone()),
        ("(Group('a') | Group('b')) & EmailDomain('a.b')", (Group("a") | Group("b")) & EmailDomain("a.b")),
        ("ServiceToken('x.access', name='backup')", ServiceToken("x.access", name="backup")),
        ("Claim('custom.level', -1, -2.5)", Claim("custom.level", -1, -2.5)),
        ("Claim('custom.level', 1, 'two', True)", Claim("custom.level", 1, "two", True)),  # noqa: FBT003 - a value
        ("Group('a')\n| Group('b')", Group("a") | Group("b")),
    ],
)  # fmt: skip
def test_a_text_is_the_policy_that_python_would_make_of_it(text: str, policy: Policy) -> None:
    assert parse_policy(text) == policy
    assert repr(parse_policy(text)) == repr(policy)


LEAVES: list[Policy] = [Group("a", "b'\"\\"), Email("ada@acme.example"), Country("DE"), Claim("custom.level", 1, "x")]


@given(
    st.recursive(
        st.sampled_from(LEAVES),
        lambda inner: st.one_of(
            st.builds(lambda left, right: left & right, inner, inner),
            st.builds(lambda left, right: left | right, inner, inner),
            st.builds(lambda part: ~part, inner),
        ),
        max_leaves=8,
    )
)
def test_the_repr_of_a_policy_is_a_text_that_means_the_same(policy: Policy) -> None:
    again = parse_policy(repr(policy))
    ada = FakeTeam("acme").user("ada@acme.example", groups=["a"])
    assert again.evaluate(ada) is policy.evaluate(ada)
    assert repr(again) == repr(policy)


@pytest.mark.conformance(73)
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not empty"),
        ("  ", "is not empty"),
        (5, "is not empty"),
        ("Group(", "this is not a policy"),
        ("Group('a'); Group('b')", "this is not a policy"),
        ("Group('a')\0", "this is not a policy"),
        ("(" * 5_000, "this is not a policy"),
        ("Group('a') or Group('b')", "not with and, or, not"),
        ("not Group('a')", "not with and, or, not"),
        ("admins", "admins is not a policy"),
        ("'Group'", "'Group' is not a policy"),
        ("True", "True is not a policy"),
        ("Predicate(print)", r"Predicate\(print\) is not a policy"),
        ("0x" + "f" * 4_000, "a number that is too long is not a policy"),
        ("Claim('custom.level', 0x" + "f" * 4_000 + ")", "a number in a policy has at most 1024 bits"),
        ("__import__('os').system('true')", "is not a policy: the policies are Anyone, Claim"),
        ("Group.__class__('a')", "is not a policy"),
        ("Group('a') + Group('b')", "is not a policy"),
        ("-Group('a')", "is not a policy"),
        ("Group('a') if 1 else Group('b')", "is not a policy"),
        ("[Group('a')]", "is not a policy"),
        ("lambda: Group('a')", "is not a policy"),
        ("x" * 70 + "()", "x… is not a policy"),
        ("Anyone()" + ".a" * 3_000, "is not a policy"),
        ("Anyone()" + ".a" * 900, "is not a policy"),
        ("Group(a)", "a is not a value"),
        ("Claim('a', -'b')", "-'b' is not a value"),
        ("Claim('a', +1)", "is not a value"),
        ("Group('a' + 'b')", "is not a value"),
        ("Group(*['a'])", "is not a value"),
        ("Group(b'a')", "is not a value"),
        ("Group(None)", "is not a value"),
        ("Group(name='a')", "Group does not take these arguments"),
        ("ServiceToken('x.access', **{'name': 'a'})", "is not a value"),
        ("Group()", r"Group\(\) names nothing"),
        ("Group(' a')", "no blanks around"),
        ("Country('Germany')", "codes of two letters"),
        ("EmailDomain('@acme')", "EmailDomain takes domains"),
        ("Group('a')" + " | Group('a')" * 60, "at most 100 parts"),
        ("Group('" + "x" * 10_000 + "')", "at most 10000 characters"),
    ],
)
def test_a_text_that_is_no_policy_is_refused_with_one_sentence(text: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        parse_policy(text)


def test_a_text_has_at_most_ten_thousand_characters() -> None:
    assert parse_policy("Group('a')".ljust(10_000)) == Group("a")
    with pytest.raises(ConfigurationError, match="at most 10000 characters"):
        parse_policy("Group('a')".ljust(10_001))


@pytest.mark.parametrize(("length", "shown"), [(60, "x" * 60), (61, "x" * 59 + "…")])
def test_a_part_of_at_most_sixty_characters_is_shown_whole(length: int, shown: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{shown} is not a policy"):
        parse_policy("x" * length)


def test_a_number_has_at_most_1024_bits() -> None:
    assert parse_policy(f"Claim('custom.level', {2**1024 - 1})") == Claim("custom.level", 2**1024 - 1)
    with pytest.raises(ConfigurationError, match="at most 1024 bits"):
        parse_policy(f"Claim('custom.level', {2**1024})")


@pytest.mark.conformance(73)
def test_a_text_of_the_greatest_size_can_be_evaluated() -> None:
    deep = "~" * 99 + "Group('a')"
    ada = FakeTeam("acme").user("ada@acme.example", groups=["a"])
    assert parse_policy(deep).evaluate(ada) is Decision.DENY
    assert text_module.MAX_PARTS == 100


@pytest.mark.conformance(73)
def test_an_expression_too_deep_for_python_refuses_the_caller() -> None:
    policy: Policy = Group("a")
    for _ in range(3_000):
        policy = ~~policy
    ada = FakeTeam("acme").user("ada@acme.example", groups=["a"])
    assert policy.evaluate(ada) is Decision.DENY


# The mapping


@pytest.mark.parametrize(
    ("roles", "sentence"),
    [
        ({}, "at least one role"),
        (None, "at least one role"),
        ([("admin", Group("a"))], "must be a mapping"),
        ({"": Group("a")}, "not blank"),
        ({" admin": Group("a")}, "without blanks around"),
        ({5: Group("a")}, "must be text"),
        ({"admin": "Group('a')"}, r"the role 'admin' is text: write parse_policy\(…\)"),
        ({"admin": None}, "the policy of the role 'admin': a policy must be a plain function"),
        ({"admin": Group}, "the policy of the role 'admin': "),
        ({"admin": [Group("a")]}, "the policy of the role 'admin': "),
    ],
)
def test_a_mapping_that_is_wrong_is_refused_where_it_is_written(roles: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        ACCESS.roles(roles)


def test_a_plain_function_can_be_the_policy_of_a_role() -> None:
    assert repr(ACCESS.roles({"all": lambda _: True, "named": Predicate(callable, name="x")})) == "access.roles(…)"


def test_roles_can_be_read_from_a_file_and_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "admin = \"Group('admins') | Email('root@acme.example')\"\n'read only' = 'Anyone()'\n"
    expected = {"admin": Group("admins") | Email("root@acme.example"), "read only": Anyone()}
    file = tmp_path / "roles.toml"
    file.write_text(text)
    monkeypatch.setenv("APP_ROLES", text)
    assert roles_from_file(file) == roles_from_file(str(file)) == roles_from_environment("APP_ROLES") == expected
    ACCESS.roles(roles_from_file(file))


MISSING = r"the file of roles .*roles\.toml has no role 'ops'; it has: operator, auditor$"


def pickled(roles: Any) -> Any:
    return pickle.loads(pickle.dumps(roles))  # noqa: S301 - its own


@pytest.mark.parametrize("made", [dict.copy, copy, deepcopy, NamedRoles.copy, pickled], ids=range(5))
def test_a_role_that_is_missing_names_the_file_and_the_roles_that_it_has(tmp_path: Path, made: Any) -> None:
    file = tmp_path / "roles.toml"
    file.write_text("operator = \"Group('ops')\"\nauditor = 'Anyone()'\n")
    read = roles_from_file(file)
    roles = made(read)
    assert ACCESS.require_user(roles["operator"]) is ACCESS.require_user(Group("ops"))
    assert roles.get("ops") is None
    for each in [read] if made is dict.copy else [read, roles]:
        with pytest.raises(ConfigurationError, match=MISSING):
            each["ops"]
    with pytest.raises(KeyError):
        roles["ops"]


def test_a_role_that_is_missing_in_a_variable_or_in_a_merge_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ROLES", "operator = \"Group('ops')\"")
    roles = roles_from_environment("APP_ROLES")
    with pytest.raises(ConfigurationError, match=r"^APP_ROLES has no role 'ops'; it has: operator$"):
        roles["ops"]
    merged = roles | {"root": Email("root@acme.example")}
    with pytest.raises(
        ConfigurationError, match=r"^the merge with APP_ROLES has no role 'ops'; it has: operator, root$"
    ):
        merged["ops"]
    assert roles == {"operator": Group("ops")}
    ACCESS.roles(merged)
    with pytest.raises(TypeError):
        roles | [("root", Email("root@acme.example"))]  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match=f"has no role '{'x' * 60}'; it has"):
        roles["x" * 10_000]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no roles"),
        ("admin = Group('a')", r"is not TOML \(.*line 1.*\): write each role as admin = \"Group"),
        ("[admin]\ngroups = ['a']", "role 'admin': write the policy as one text"),
        ("admin = ['a']", "role 'admin': write the policy as one text"),
        ("' ' = \"Anyone()\"", "role ' ': the name of a role must be text, not blank"),
        ('admin = "Group()"', r"role 'admin': Group\(\) names nothing"),
        ("admin = \"Group('a')\"\nadmin = \"Anyone()\"", "is not TOML"),
        ('\ufeffadmin = "Anyone()"', "is not TOML"),
        ("admin = " + "[" * 3_000 + "]" * 3_000, "the nesting is too deep"),
        ("admin = " + "1" * 5_000, "a number is too long"),
    ],
)  # fmt: skip
def test_wrong_roles_of_an_operator_are_refused_with_file_and_role(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, sentence: str
) -> None:
    file = tmp_path / "roles.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=f"the file of roles .*roles.toml.*{sentence}"):
        roles_from_file(file)
    monkeypatch.setenv("APP_ROLES", text)
    with pytest.raises(ConfigurationError, match=sentence if text else "APP_ROLES is not set"):
        roles_from_environment("APP_ROLES")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing.toml cannot be read: No such file"):
        roles_from_file(tmp_path / "missing.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="it is not UTF-8"):
        roles_from_file(binary)
    not_paths: list[Any] = ["a\0b", None, 5.5]
    for wrong in not_paths:
        with pytest.raises(ConfigurationError, match="cannot be read: it is not a path"):
            roles_from_file(wrong)
    with pytest.raises(ConfigurationError, match="APP_ROLES_2 is not set"):
        roles_from_environment("APP_ROLES_2")
