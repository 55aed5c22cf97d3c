"""Policies about what a token says of the caller: address, groups, country, Client ID, and any other claim."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi_cloudflare_access._domains import normal_domain
from fastapi_cloudflare_access._not_a_dependency import forbid_as_dependency
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.policies.logic import NO_DEPENDENCY, Decision, Paths, Policy, Subject, decision_of
from fastapi_cloudflare_access.policies.reading import (
    UnreadableClaim,
    group_names,
    normal_address,
)

_SCALARS = (str, int, float, bool)
_CLIENT_ID = re.compile(r"\.access(?:\.|$)")
"""The end of a Client ID; old ones have a domain after it."""
_MAX_SHOWN = 60


@dataclass(frozen=True, slots=True)
class _OneOf(Policy):
    """A policy with one or more names."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        """Create the policy.

        Args:
            *names: The names, of which one must match.

        Raises:
            ConfigurationError: There is no name, or one is not text, is blank, or has blanks around it.
        """
        kind = type(self).__name__
        for name in cast("tuple[object, ...]", names):
            if not isinstance(name, str):
                raise ConfigurationError(f"{kind} takes text, not {type(name).__name__}: write {kind}('…', '…')")
            if not name.strip() or name != name.strip():
                raise ConfigurationError(f"{kind} takes names that are not blank and have no blanks around them")
        if not names:
            raise ConfigurationError(f"{kind}() names nothing: write {kind}('…')")
        object.__setattr__(self, "names", tuple(sorted({self._normal(name) for name in names})))

    def _normal(self, name: str) -> str:
        return name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.names))})"


class Email(_OneOf):
    """Users with one of these addresses, in any case: `Email("ada@acme.example")`."""

    __slots__ = ()

    def _normal(self, name: str) -> str:
        return normal_address(name, ConfigurationError("Email takes addresses, such as Email('ada@acme.example')"))

    def _evaluate(self, subject: Subject) -> Decision:
        address = _address_of(subject)
        return address if isinstance(address, Decision) else decision_of(address in self.names)

    def _claims(self, group_claims: Paths) -> Paths:  # noqa: ARG002 - it reads no groups
        return (("email",),)


class EmailDomain(_OneOf):
    """Users whose address is at exactly one of these domains: `EmailDomain("acme.example")`.

    Subdomains do not match. Domains compare in lower case and as IDNA (RFC 5891).
    """

    __slots__ = ()

    def _normal(self, name: str) -> str:
        return normal_domain(name, ConfigurationError("EmailDomain takes domains, such as EmailDomain('acme.example')"))

    def _evaluate(self, subject: Subject) -> Decision:
        address = _address_of(subject)
        return address if isinstance(address, Decision) else decision_of(address.partition("@")[2] in self.names)

    def _claims(self, group_claims: Paths) -> Paths:  # noqa: ARG002 - it reads no groups
        return (("email",),)


class Group(_OneOf):
    """Users in one of these groups, by name or id: `Group("admins")`. A service has no groups."""

    __slots__ = ()

    def _evaluate(self, subject: Subject) -> Decision:
        if isinstance(subject.caller, ServiceClaims):
            return Decision.DENY
        value = subject.read(*subject.group_claims)
        return Decision.UNKNOWN if value is None else decision_of(not set(group_names(value)).isdisjoint(self.names))

    def _claims(self, group_claims: Paths) -> Paths:
        return group_claims


class Country(_OneOf):
    """Users that logged in from one of these countries (ISO 3166-1 alpha-2): `Country("DE", "FR")`."""

    __slots__ = ()

    def _normal(self, name: str) -> str:
        if not _is_country(name):
            raise ConfigurationError("Country takes codes of two letters, such as Country('DE')")
        return name.upper()

    def _evaluate(self, subject: Subject) -> Decision:
        country = subject.caller.country if isinstance(subject.caller, UserClaims) else None
        if country is None and subject.identity is not None and subject.identity.geo is not None:
            country = subject.identity.geo.country
        if country is None or not _is_country(country):  # `XX` and `T1` are no countries
            return Decision.UNKNOWN
        return decision_of(country.upper() in self.names)

    def _claims(self, group_claims: Paths) -> Paths:  # noqa: ARG002 - it reads no groups
        return (("country",),)


@dataclass(frozen=True, slots=True)
class ServiceToken(Policy):
    """Services with one of these Client IDs: `ServiceToken("0123abcd….access", name="backup")`.

    A client certificate whose common name equals a Client ID matches too, and its CA chooses that name.

    Attributes:
        client_ids: The Client IDs.
        name: What logs and events show beside the ids.
    """

    client_ids: tuple[str, ...]
    name: str | None = field(default=None, compare=False)

    def __init__(self, *client_ids: str, name: str | None = None) -> None:
        """Create the policy.

        Raises:
            ConfigurationError: There is no Client ID, one is not a Client ID, or the name is not text or is blank.
        """
        ids = cast("tuple[object, ...]", client_ids)
        if not ids or not all(isinstance(one, str) and one.strip() and one == one.strip() for one in ids):
            raise ConfigurationError("ServiceToken takes Client IDs, such as ServiceToken('0123….access')")
        if wrong := next((one for one in client_ids if not _CLIENT_ID.search(one)), None):
            raise ConfigurationError(
                f"{wrong[:_MAX_SHOWN]!r} is not a Client ID, which ends with .access: copy that of the service token, "
                "and give a name as name='…'; for a client certificate write Claim('common_name', '…')"
            )
        if name is not None and not (isinstance(cast("object", name), str) and name.strip()):
            raise ConfigurationError("the name of a ServiceToken must be text that is not blank")
        object.__setattr__(self, "client_ids", tuple(sorted(set(client_ids))))
        object.__setattr__(self, "name", name)

    def _evaluate(self, subject: Subject) -> Decision:
        caller = subject.caller
        return decision_of(isinstance(caller, ServiceClaims) and caller.client_id in self.client_ids)

    def __repr__(self) -> str:
        ids = ", ".join(map(repr, self.client_ids))
        return f"ServiceToken({ids})" if self.name is None else f"ServiceToken({ids}, name={self.name!r})"


@dataclass(frozen=True, slots=True)
class Claim(Policy):
    """Callers whose claim is one of these values, or a list that has one: `Claim("custom.department", "sales")`.

    An absent claim is unknown, since Access drops custom claims that do not fit into a cookie. Values compare by type:
    `Claim("custom.level", 1)` does not match `true` or `"1"`.

    Attributes:
        path: The names of the members, from the outermost one.
        values: The values.
    """

    path: tuple[str, ...]
    values: tuple[str | int | float | bool, ...]

    def __init__(self, path: Annotated[str | Sequence[str], NO_DEPENDENCY], /, *values: str | float) -> None:
        """Create the policy.

        Args:
            path: The names of the members, separated by dots, or as a sequence if a name has a dot.
            *values: Texts, numbers or booleans.

        Raises:
            ConfigurationError: The path or the values are empty or of a wrong type.
        """
        names = tuple(path.split(".")) if isinstance(path, str) else tuple(path)
        if not names or not all(isinstance(cast("object", name), str) and name for name in names):
            raise ConfigurationError("Claim takes a path of names, such as Claim('custom.department', 'sales')")
        if not values or not all(type(value) in _SCALARS for value in values):
            raise ConfigurationError("Claim takes values that are text, numbers or booleans: Claim('custom.x', 'a')")
        object.__setattr__(self, "path", names)
        object.__setattr__(self, "values", values)

    def _evaluate(self, subject: Subject) -> Decision:
        found = subject.read(self.path)
        if found is None:
            return Decision.UNKNOWN
        items = cast("Sequence[object]", found) if isinstance(found, list | tuple) else (found,)
        wanted = [(type(value), value) for value in self.values]
        return decision_of(any((type(item), item) in wanted for item in items))

    def _claims(self, group_claims: Paths) -> Paths:  # noqa: ARG002 - it reads no groups
        return (self.path,)

    def __eq__(self, other: object) -> bool:
        """Check whether path and values are equal, the types of the values included."""
        return isinstance(other, Claim) and self._identity() == other._identity()

    def __hash__(self) -> int:
        """Return a hash of path and values."""
        return hash(self._identity())

    def _identity(self) -> tuple[object, ...]:
        return self.path, frozenset((type(value), value) for value in self.values)

    def __repr__(self) -> str:
        return f"Claim({', '.join(map(repr, ('.'.join(self.path), *self.values)))})"


for _kind in (Claim, Country, Email, EmailDomain, Group, ServiceToken):
    forbid_as_dependency(_kind, NO_DEPENDENCY.sentence)


def _is_country(code: str) -> bool:
    """Check whether this is a code of two letters, and not `XX`, which stands for an unknown country."""
    return len(code) == 2 and code.isascii() and code.isalpha() and code.upper() != "XX"  # noqa: PLR2004 - letters


def _address_of(subject: Subject) -> str | Decision:
    """Return the normal form of a user's address, or the decision without one: a service has none.

    Raises:
        UnreadableClaim: The address is not one.
    """
    if isinstance(subject.caller, ServiceClaims):
        return Decision.DENY
    address = subject.caller.email
    if address is None and subject.identity is not None:
        address = subject.identity.email
    return Decision.UNKNOWN if address is None else normal_address(address, UnreadableClaim())
