"""Roles: names that the app gives to policies, in the code, in a TOML file or in one environment variable."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn, Self, TypeAlias, cast

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.policies.expressions import parse_policy
from fastapi_cloudflare_access.policies.logic import NO_DEPENDENCY, Policy, as_policy

Roles: TypeAlias = tuple[tuple[str, Policy], ...]
"""Roles that are checked: name and policy of each."""

MAX_NAME = 60
"""Number of characters that an error shows of the name of a missing role."""


class NoSuchRole(ConfigurationError, KeyError):
    """Also a KeyError, since it is raised by a mapping."""

    __str__ = Exception.__str__  # a KeyError shows the `repr` of its message


class NamedRoles(dict[str, Policy]):
    """The roles of a file or of a variable: a dictionary that says which roles there are if one is missing."""

    source: str = "the mapping"

    @classmethod
    def of(cls, source: str, roles: Mapping[str, Policy]) -> Self:
        """Return these roles, with the name of what they were read from."""
        named = cls(roles)
        named.source = source
        return named

    def __missing__(self, name: object) -> NoReturn:
        """Fail, and name the roles that there are.

        Raises:
            ConfigurationError: Always; it is a KeyError too.
        """
        raise NoSuchRole(f"{self.source} has no role {str(name)[:MAX_NAME]!r}; it has: {', '.join(self)}")

    def copy(self) -> Self:
        """Return a copy that names its source too."""
        return self.of(self.source, self)

    def __or__(self, others: Any) -> Any:
        """Return these roles and others, which replace those of the same name."""
        if not isinstance(others, Mapping):
            return NotImplemented
        return self.of(f"the merge with {self.source}", {**self, **cast("Mapping[str, Policy]", others)})


def check_roles(roles: Any) -> Roles:
    """Return the roles of a mapping from names to policies.

    Raises:
        ConfigurationError: There is none, a name is not text or has blanks around it, or a policy is not one.
    """
    if not isinstance(roles, Mapping) or not roles:
        raise ConfigurationError("roles must be a mapping with at least one role, such as {'admin': Group('admins')}")
    for name in cast("Mapping[object, object]", roles):
        _check_name(name)
    checked: list[tuple[str, Policy]] = []
    for name, policy in cast("Mapping[str, Any]", roles).items():
        if isinstance(policy, str):
            raise ConfigurationError(f"the policy of the role {name!r} is text: write parse_policy(…) around it")
        try:
            checked.append((name, as_policy(policy)))
        except ConfigurationError as problem:
            raise ConfigurationError(f"the policy of the role {name!r}: {problem}") from None
    return tuple(checked)


def roles_from_file(path: Annotated[str | os.PathLike[str], NO_DEPENDENCY]) -> dict[str, Policy]:
    """Return the roles of a TOML file for `access.roles`.

    The policy of one role is `roles["admin"]`; a name that the file does not have is an error with those that it has.

    ```toml
    admin = "Group('admins') | Email('root@acme.example')"
    auditor = "EmailDomain('audit.example')"
    ```

    Raises:
        ConfigurationError: The file cannot be read, is not TOML, or a role in it is wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError, TypeError) as problem:
        why = getattr(problem, "strerror", None) or (
            "it is not UTF-8" if isinstance(problem, UnicodeError) else "it is not a path"
        )
        raise ConfigurationError(f"the file of roles {path!s} cannot be read: {why}") from None
    return _parse(text, f"the file of roles {path!s}")


def roles_from_environment(variable: Annotated[str, NO_DEPENDENCY]) -> dict[str, Policy]:
    """Return the roles of an environment variable for `access.roles`: the same TOML as in a file.

    Raises:
        ConfigurationError: The variable is not set, is not TOML, or a role in it is wrong.
    """
    text = os.environ.get(variable, "")
    if not text.strip():
        raise ConfigurationError(f"{variable} is not set: set it to roles, such as admin = \"Group('admins')\"")
    return _parse(text, variable)


def _parse(text: str, source: str) -> dict[str, Policy]:
    try:
        entries = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise ConfigurationError(
            f"{source} is not TOML ({problem}): write each role as admin = \"Group('admins')\", its policy in quotes"
        ) from None
    except (ValueError, RecursionError):
        raise ConfigurationError(
            f"{source} is not TOML of roles: a number is too long, or the nesting is too deep"
        ) from None
    if not entries:
        raise ConfigurationError(f"{source} has no roles: write admin = \"Group('admins')\"")
    return NamedRoles.of(source, {name: _role(name, entry, source) for name, entry in entries.items()})


def _role(name: str, entry: object, source: str) -> Policy:
    try:
        _check_name(name)
        if isinstance(entry, str):
            return parse_policy(entry)
    except ConfigurationError as problem:
        raise ConfigurationError(f"{source}, role {name!r}: {problem}") from None
    raise ConfigurationError(f"{source}, role {name!r}: write the policy as one text, such as \"Group('admins')\"")


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name or name != name.strip():
        raise ConfigurationError("the name of a role must be text, not blank and without blanks around it")
