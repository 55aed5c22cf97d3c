"""Policies: who may do what, as values that combine with `&`, `|` and `~`.

```
Email("ada@acme.example") | EmailDomain("acme.example") & ~Group("contractors")
```

A policy is evaluated by Kleene's three-valued logic: what a token does not say is unknown, and the negation of unknown
is unknown. Only a policy that is true admits a caller. A claim that cannot be read refuses the caller, negated or not.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, cast

import idna
from pydantic import BaseModel

from fastapi_cloudflare_access._policy import ask, check_policy, policy_name
from fastapi_cloudflare_access.claims import Claims, ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import ConfigurationError

GROUP_CLAIMS = ("custom.groups", "groups")
"""Paths of the claims in which groups are looked for, by default."""
_SCALARS = (str, int, float, bool)


class Decision(Enum):
    """The value of a policy for a caller."""

    ALLOW = "allow"
    DENY = "deny"
    UNKNOWN = "unknown"

    def __and__(self, other: "Decision") -> "Decision":
        """Return the conjunction: false if either is false, true if both are."""
        if Decision.DENY in (self, other):
            return Decision.DENY
        return Decision.UNKNOWN if Decision.UNKNOWN in (self, other) else Decision.ALLOW

    def __or__(self, other: "Decision") -> "Decision":
        """Return the disjunction: true if either is true, false if both are."""
        return ~(~self & ~other)

    def __invert__(self) -> "Decision":
        """Return the negation; that of unknown is unknown."""
        return {Decision.ALLOW: Decision.DENY, Decision.DENY: Decision.ALLOW}.get(self, Decision.UNKNOWN)


class Subject(NamedTuple):
    """The input of a policy.

    Attributes:
        caller: The verified claims.
        group_claims: Paths of the claims in which groups are looked for.
    """

    caller: Claims
    group_claims: Sequence[str]


class UnreadableClaim(Exception):
    """A claim has a part that cannot be read, so that the whole policy refuses the caller."""


class Policy(ABC):
    """The base of the policies; an immutable value, equal to others of the same content."""

    def evaluate(self, caller: Claims, *, group_claims: Sequence[str] = GROUP_CLAIMS) -> Decision:
        """Return the decision for a caller; every part is evaluated.

        Args:
            caller: The verified claims.
            group_claims: Paths of the claims in which groups are looked for; the first that is present decides.
        """
        try:
            return self._evaluate(Subject(caller, group_claims))
        except UnreadableClaim:
            return Decision.DENY

    @abstractmethod
    def _evaluate(self, subject: Subject) -> Decision: ...

    def __call__(self, caller: Any, /) -> bool:
        """Return whether the policy admits a caller by the token alone, with the default `group_claims`."""
        return self.evaluate(caller) is Decision.ALLOW

    def __and__(self, other: "Policy | Callable[[Any], bool]") -> "Policy":
        """Return the policy that is true if both are."""
        return Both((self, as_policy(other)))

    def __rand__(self, other: Callable[[Any], bool]) -> "Policy":
        """Return the policy that is true if both are."""
        return Both((as_policy(other), self))

    def __or__(self, other: "Policy | Callable[[Any], bool]") -> "Policy":
        """Return the policy that is true if either is."""
        return Either((self, as_policy(other)))

    def __ror__(self, other: Callable[[Any], bool]) -> "Policy":
        """Return the policy that is true if either is."""
        return Either((as_policy(other), self))

    def __invert__(self) -> "Policy":
        """Return the policy that is true if this one is false; unknown stays unknown."""
        return Not(self)

    def __bool__(self) -> bool:
        """Fail, since `and`, `or` and `not` would drop a part of the policy.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError("a policy has no truth value: combine policies with &, | and ~, not with and, or, not")


@dataclass(frozen=True, slots=True)
class Both(Policy):
    """The conjunction of two policies, made by `&`."""

    parts: tuple[Policy, Policy]

    def _evaluate(self, subject: Subject) -> Decision:
        left, right = (part._evaluate(subject) for part in self.parts)  # noqa: SLF001 - of this class
        return left & right

    def __repr__(self) -> str:
        return " & ".join(f"({part!r})" if isinstance(part, Either) else repr(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Either(Policy):
    """The disjunction of two policies, made by `|`."""

    parts: tuple[Policy, Policy]

    def _evaluate(self, subject: Subject) -> Decision:
        left, right = (part._evaluate(subject) for part in self.parts)  # noqa: SLF001 - of this class
        return left | right

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.parts))


@dataclass(frozen=True, slots=True)
class Not(Policy):
    """The negation of a policy, made by `~`."""

    part: Policy

    def _evaluate(self, subject: Subject) -> Decision:
        return ~self.part._evaluate(subject)  # noqa: SLF001 - of this class

    def __repr__(self) -> str:
        return f"~({self.part!r})" if isinstance(self.part, Both | Either) else f"~{self.part!r}"


@dataclass(frozen=True, slots=True)
class Anyone(Policy):
    """Every caller with a valid token."""

    def _evaluate(self, subject: Subject) -> Decision:  # noqa: ARG002 - nothing has to be known
        return Decision.ALLOW


@dataclass(frozen=True, slots=True, init=False)
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
        return _address(name, ConfigurationError("Email takes addresses, such as Email('ada@acme.example')"))

    def _evaluate(self, subject: Subject) -> Decision:
        address = _address_of(subject.caller)
        return address if isinstance(address, Decision) else _decision(address in self.names)


class EmailDomain(_OneOf):
    """Users whose address is at exactly one of these domains: `EmailDomain("acme.example")`.

    Subdomains do not match. Domains compare in lower case and as IDNA (RFC 5891).
    """

    __slots__ = ()

    def _normal(self, name: str) -> str:
        return _domain(name, ConfigurationError("EmailDomain takes domains, such as EmailDomain('acme.example')"))

    def _evaluate(self, subject: Subject) -> Decision:
        address = _address_of(subject.caller)
        return address if isinstance(address, Decision) else _decision(address.partition("@")[2] in self.names)


class Group(_OneOf):
    """Users in one of these groups, by name or id: `Group("admins")`. A service has no groups."""

    __slots__ = ()

    def _evaluate(self, subject: Subject) -> Decision:
        if isinstance(subject.caller, ServiceClaims):
            return Decision.DENY
        for path in subject.group_claims:
            if (value := _claim(subject.caller, path.split("."))) is not None:
                return _decision(not set(_group_names(value)).isdisjoint(self.names))
        return Decision.UNKNOWN


class Country(_OneOf):
    """Users that logged in from one of these countries (ISO 3166-1 alpha-2): `Country("DE", "FR")`."""

    __slots__ = ()

    def _normal(self, name: str) -> str:
        if len(name) != 2 or not (name.isascii() and name.isalpha()):  # noqa: PLR2004 - letters of a code
            raise ConfigurationError("Country takes codes of two letters, such as Country('DE')")
        return name.upper()

    def _evaluate(self, subject: Subject) -> Decision:
        caller = subject.caller
        country = caller.country if isinstance(caller, UserClaims) else None
        return Decision.UNKNOWN if country is None else _decision(country.upper() in self.names)


@dataclass(frozen=True, slots=True, init=False)
class ServiceToken(Policy):
    """Services with one of these Client IDs: `ServiceToken("0123abcd….access", name="backup")`.

    A client certificate whose common name equals a Client ID matches too, and its CA chooses that name.

    Attributes:
        client_ids: The Client IDs.
        name: What logs and events show instead of the ids; None shows the ids.
    """

    client_ids: tuple[str, ...]
    name: str | None = field(default=None, compare=False)

    def __init__(self, *client_ids: str, name: str | None = None) -> None:
        """Create the policy.

        Raises:
            ConfigurationError: There is no Client ID, or an id or the name is not text or is blank.
        """
        ids = cast("tuple[object, ...]", client_ids)
        if not ids or not all(isinstance(one, str) and one.strip() and one == one.strip() for one in ids):
            raise ConfigurationError("ServiceToken takes Client IDs, such as ServiceToken('0123….access')")
        if name is not None and not (isinstance(cast("object", name), str) and name.strip()):
            raise ConfigurationError("the name of a ServiceToken must be text that is not blank")
        object.__setattr__(self, "client_ids", tuple(sorted(set(client_ids))))
        object.__setattr__(self, "name", name)

    def _evaluate(self, subject: Subject) -> Decision:
        caller = subject.caller
        return _decision(isinstance(caller, ServiceClaims) and caller.client_id in self.client_ids)

    def __repr__(self) -> str:
        return f"ServiceToken({self.name or ', '.join(self.client_ids)!r})"


@dataclass(frozen=True, slots=True, init=False)
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

    def __init__(self, path: str | Sequence[str], /, *values: str | float) -> None:
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
        found = _claim(subject.caller, self.path)
        if found is None:
            return Decision.UNKNOWN
        items = cast("Sequence[object]", found) if isinstance(found, list | tuple) else (found,)
        wanted = [(type(value), value) for value in self.values]
        return _decision(any((type(item), item) in wanted for item in items))

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


@dataclass(frozen=True, slots=True, init=False)
class Predicate(Policy):
    """Callers for which a function of the claims returns True.

    A function that raises, or returns something other than True or False, refuses the caller, also negated.

    Attributes:
        function: The function.
        name: What logs and events show.
    """

    function: Callable[[Any], bool]
    name: str = field(compare=False)

    def __init__(self, function: Callable[[Any], bool], /, *, name: str | None = None) -> None:
        """Create the policy.

        Raises:
            ConfigurationError: The function cannot be called with the claims, or the name is blank.
        """
        check_policy(function)
        if name is not None and not (isinstance(cast("object", name), str) and name.strip()):
            raise ConfigurationError("the name of a Predicate must be text that is not blank")
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "name", name or policy_name(function))

    def _evaluate(self, subject: Subject) -> Decision:
        decision = ask(self.function, subject.caller)
        if decision is None:
            raise UnreadableClaim
        return _decision(decision)

    def __repr__(self) -> str:
        return self.name


def as_policy(policy: Any) -> Policy:
    """Return a policy as it is, and a plain function as a `Predicate`.

    Raises:
        ConfigurationError: It is neither.
    """
    return policy if isinstance(policy, Policy) else Predicate(policy)


def _decision(value: bool) -> Decision:  # noqa: FBT001 - the value of a comparison
    return Decision.ALLOW if value else Decision.DENY


def _claim(caller: Claims, path: Sequence[str]) -> object:
    """Return the claim at a path; None if it is absent or null, or if a part on the way is not an object."""
    value: object = caller
    for name in path:
        if isinstance(value, BaseModel):
            is_field = name in type(value).model_fields
            value = getattr(value, name) if is_field else (value.model_extra or {}).get(name)
        else:
            value = cast("Mapping[str, object]", value).get(name) if isinstance(value, Mapping) else None
    return value


def _group_names(value: object) -> Iterator[str]:
    """Yield the names and ids of the groups in a claim: a text is one group, an object has `id` or `name`.

    Raises:
        UnreadableClaim: A part is something else.
    """
    for group in cast("Sequence[object]", value) if isinstance(value, list | tuple) else (value,):
        if isinstance(group, str):
            yield group
            continue
        if not isinstance(group, Mapping):
            raise UnreadableClaim
        members = cast("Mapping[str, object]", group)
        names = [members[name] for name in ("id", "name") if members.get(name) is not None]
        if not names or not all(isinstance(name, str) for name in names):
            raise UnreadableClaim
        yield from cast("list[str]", names)


def _address_of(caller: Claims) -> str | Decision:
    """Return the normal form of a user's address, or the decision without one: a service has none.

    Raises:
        UnreadableClaim: The address is not one.
    """
    if isinstance(caller, ServiceClaims):
        return Decision.DENY
    return Decision.UNKNOWN if caller.email is None else _address(caller.email, UnreadableClaim())


def _address(text: str, error: Exception) -> str:
    local, _, domain = text.partition("@")
    if not local or "@" in domain:
        raise error
    return f"{local.lower() if local.isascii() else local}@{_domain(domain, error)}"


def _domain(text: str, error: Exception) -> str:
    """Return a domain in lower case and as IDNA (UTS 46, nontransitional); a trailing dot is an error."""
    try:
        encoded = idna.encode(text, strict=True, uts46=True, std3_rules=True).decode()
    except (idna.IDNAError, UnicodeError):
        raise error from None
    if "." not in encoded or encoded.endswith("."):
        raise error
    return encoded
