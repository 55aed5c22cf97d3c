"""Policies as text, for operators: `Group("admins") | Email("root@acme.example") & ~Country("XX")`.

The text is parsed and never executed. It can name and combine the policies of this package.
"""

import ast
from collections.abc import Callable
from typing import Annotated, Any, cast

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.policies.callers import Claim, Country, Email, EmailDomain, Group, ServiceToken
from fastapi_cloudflare_access.policies.logic import NO_DEPENDENCY, Anyone, Policy

MAX_TEXT = 10_000
"""Number of characters that a policy may have as text."""
MAX_PARTS = 100
"""Number of policies and operators that it may have; Python's parser limits how deep they nest."""
MAX_BITS = 1024
"""Number of bits that an integer in it may have."""

_POLICIES: dict[str, Callable[..., Policy]] = {
    kind.__name__: kind for kind in (Anyone, Claim, Country, Email, EmailDomain, Group, ServiceToken)
}


def parse_policy(text: Annotated[str, NO_DEPENDENCY]) -> Policy:
    """Return the policy that a text describes.

    Args:
        text: Policies of this package, combined with `&`, `|`, `~` and parentheses.

    Raises:
        ConfigurationError: It is not such a text; the message says which part.
    """
    if not isinstance(cast("object", text), str) or not text.strip():
        raise ConfigurationError("a policy as text is not empty: write one in quotes, such as \"Group('admins')\"")
    if len(text) > MAX_TEXT:
        raise ConfigurationError(f"a policy as text has at most {MAX_TEXT} characters")
    try:
        tree = ast.parse(f"(\n{text}\n)", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConfigurationError("this is not a policy: write one such as Group('admins') | Email('a@b.c')") from None
    if sum(isinstance(node, ast.Call | ast.BinOp | ast.UnaryOp) for node in ast.walk(tree)) > MAX_PARTS:
        raise ConfigurationError(f"a policy as text has at most {MAX_PARTS} parts")
    return _policy_of(tree)


def _policy_of(node: ast.expr) -> Policy:
    match node:
        case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
            return _policy_of(left) & _policy_of(right)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _policy_of(left) | _policy_of(right)
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return ~_policy_of(operand)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords) if name in _POLICIES:
            return _made(name, [_value(argument) for argument in arguments], keywords)
        case ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            raise ConfigurationError("combine policies with &, | and ~, not with and, or, not")
        case _:
            raise ConfigurationError(f"{_shown(node)} is not a policy: the policies are {', '.join(_POLICIES)}")


def _made(name: str, arguments: list[Any], keywords: list[ast.keyword]) -> Policy:
    options = {str(keyword.arg): _value(keyword.value) for keyword in keywords}
    try:
        return _POLICIES[name](*arguments, **options)
    except TypeError:
        raise ConfigurationError(f"{name} does not take these arguments: write {name}('…')") from None


def _value(node: ast.expr) -> str | float:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
        if isinstance(node.value, int) and node.value.bit_length() > MAX_BITS:
            raise ConfigurationError(f"a number in a policy has at most {MAX_BITS} bits")
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand)
        if not isinstance(number, str):
            return -number
    raise ConfigurationError(f"{_shown(node)} is not a value: write texts in quotes, or numbers")


def _shown(node: ast.expr) -> str:
    try:
        text = ast.unparse(node)
    except RecursionError:
        return "a part that nests too deep"
    except ValueError:  # Python writes no number of thousands of digits
        return "a number that is too long"
    return text if len(text) <= 60 else f"{text[:59]}…"  # noqa: PLR2004 - fits a line
