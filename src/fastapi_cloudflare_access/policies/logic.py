"""The logic of policies: decisions, their combination, and functions as policies."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, NamedTuple, TypeAlias, cast

from fastapi_cloudflare_access._not_a_dependency import NotADependency, forbid_as_dependency
from fastapi_cloudflare_access._policy import ask, check_policy, policy_name
from fastapi_cloudflare_access.claims import Claims, UserClaims
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.policies.reading import UnreadableClaim, dropping_model, read_claim, read_identity
from fastapi_cloudflare_access.settings import GROUP_CLAIMS

NO_DEPENDENCY = NotADependency(
    "a policy is not a dependency, and what makes one is none either: write Depends(access.require(policy))"
)


Paths: TypeAlias = tuple[tuple[str, ...], ...]
"""Paths of claims, each with the names of the members from the outermost one."""


class Decision(Enum):
    """The value of a policy for a caller."""

    ALLOW = "allow"
    DENY = "deny"
    UNKNOWN = "unknown"

    def __and__(self, other: "Decision") -> "Decision":
        """Return the conjunction: false if either is false, true if both are."""
        if self is _DENY or other is _DENY:
            return _DENY
        return _UNKNOWN if self is _UNKNOWN or other is _UNKNOWN else _ALLOW

    def __or__(self, other: "Decision") -> "Decision":
        """Return the disjunction: true if either is true, false if both are."""
        if self is _ALLOW or other is _ALLOW:
            return _ALLOW
        return _UNKNOWN if self is _UNKNOWN or other is _UNKNOWN else _DENY

    def __invert__(self) -> "Decision":
        """Return the negation; that of unknown is unknown."""
        if self is _UNKNOWN:
            return _UNKNOWN
        return _DENY if self is _ALLOW else _ALLOW


_ALLOW, _DENY, _UNKNOWN = Decision  # fast path: a look-up on the class of an enum costs as much as the logic


class Subject(NamedTuple):
    """The input of a policy.

    Attributes:
        caller: The verified claims.
        group_claims: Paths of the claims in which groups are looked for.
        identity: The identity of the user, if it was needed and is known.
    """

    caller: Claims
    group_claims: Paths
    identity: Identity | None = None

    def read(self, *paths: Sequence[str]) -> object:
        """Return the first claim at one of the paths that the token has, or else the identity; None if neither has."""
        for path in paths:
            if (value := read_claim(self.caller, path)) is not None:
                return value
        if self.identity is not None:
            for path in paths:
                if (value := read_identity(self.identity, path)) is not None:
                    return value
        return None


class Policy(ABC):
    """The base of the policies; an immutable value, equal to others of the same content."""

    __slots__ = ()

    def evaluate(
        self,
        caller: Annotated[Claims, NO_DEPENDENCY],
        *,
        group_claims: Sequence[str] = GROUP_CLAIMS,
        identity: Identity | None = None,
    ) -> Decision:
        """Return the decision for a caller; every part is evaluated.

        The token alone is read first. If that leaves the decision unknown, the whole policy is evaluated again with the
        identity, which adds what the token does not have.

        Args:
            caller: The verified claims.
            group_claims: Paths of the claims in which groups are looked for; the first that is present decides.
            identity: The identity of the user, if it is known.
        """
        subject = Subject(caller, split_paths(tuple(group_claims)))
        decision = self.decide(subject)
        if decision is _UNKNOWN and identity is not None:
            return self.decide(subject._replace(identity=identity))
        return decision

    def decide(self, subject: Subject) -> Decision:
        """Return the decision by what this subject has: one step of `evaluate`."""
        try:
            return self._evaluate(subject)
        except (UnreadableClaim, RecursionError):
            return _DENY

    @abstractmethod
    def _evaluate(self, subject: Subject) -> Decision: ...

    def _parts(self) -> "tuple[Policy, ...]":
        return ()

    def _claims(self, group_claims: Paths) -> Paths:  # noqa: ARG002 - for the policy about groups
        return ()

    def __call__(self, caller: Annotated[Any, NO_DEPENDENCY], /) -> bool:
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
        raise ConfigurationError(
            "a policy has no truth value: combine policies with &, | and ~, not with "
            "and, or, not; to protect a route, write Depends(access.require_user(policy))"
        )


@dataclass(frozen=True, slots=True)
class Both(Policy):
    """The conjunction of two policies, made by `&`."""

    parts: tuple[Policy, Policy]

    def _parts(self) -> tuple[Policy, ...]:
        return self.parts

    def _evaluate(self, subject: Subject) -> Decision:
        left, right = self.parts
        return left._evaluate(subject) & right._evaluate(subject)  # noqa: SLF001 - of this class

    def __repr__(self) -> str:
        return " & ".join(f"({part!r})" if isinstance(part, Either) else repr(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Either(Policy):
    """The disjunction of two policies, made by `|`."""

    parts: tuple[Policy, Policy]

    def _parts(self) -> tuple[Policy, ...]:
        return self.parts

    def _evaluate(self, subject: Subject) -> Decision:
        left, right = self.parts
        return left._evaluate(subject) | right._evaluate(subject)  # noqa: SLF001 - of this class

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.parts))


@dataclass(frozen=True, slots=True)
class Not(Policy):
    """The negation of a policy, made by `~`."""

    part: Policy

    def _parts(self) -> tuple[Policy, ...]:
        return (self.part,)

    def _evaluate(self, subject: Subject) -> Decision:
        return ~self.part._evaluate(subject)  # noqa: SLF001 - of this class

    def __repr__(self) -> str:
        return f"~({self.part!r})" if isinstance(self.part, Both | Either) else f"~{self.part!r}"


@dataclass(frozen=True, slots=True)
class Anyone(Policy):
    """Every caller with a valid token."""

    def _evaluate(self, subject: Subject) -> Decision:  # noqa: ARG002 - nothing has to be known
        return Decision.ALLOW


@dataclass(frozen=True, slots=True)
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
        return decision_of(decision)

    def __repr__(self) -> str:
        return self.name


for _kind in (Policy, Predicate):  # those without parameters of their own, or only with policies, inherit it
    forbid_as_dependency(_kind, NO_DEPENDENCY.sentence)


@lru_cache(maxsize=64)
def split_paths(group_claims: tuple[str, ...]) -> Paths:
    """Return the names of each path."""
    return tuple(tuple(path.split(".")) for path in group_claims)


def claims_read(policy: Policy, group_claims: Paths) -> dict[tuple[str, ...], Policy]:
    """Return the paths of the claims that a policy reads, each with the part that reads it."""
    found: dict[tuple[str, ...], Policy] = {}
    waiting = [policy]
    while waiting:
        part = waiting.pop()
        waiting.extend(reversed(part._parts()))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module
        for path in part._claims(group_claims):  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - the same
            found.setdefault(path, part)
    return found


def check_claims_are_kept(policy: Policy, model: type[UserClaims], group_claims: tuple[str, ...]) -> None:
    """Check that a model of users keeps every claim that a policy reads.

    Raises:
        ConfigurationError: A model without a field for a claim drops it.
    """
    for path, part in claims_read(policy, split_paths(group_claims)).items():
        if (found := dropping_model(model, path)) is not None:
            name, field_name = found[0].__name__, found[1]
            raise ConfigurationError(
                f"the model {name} drops the claim {'.'.join(path)}, which {part!r} reads: "
                f"write {field_name}: Any = None in {name}, or extra='allow' in its model_config"
            )


def as_policy(policy: Any) -> Policy:
    """Return a policy as it is, and a plain function as a `Predicate`.

    Raises:
        ConfigurationError: It is neither.
    """
    return policy if isinstance(policy, Policy) else Predicate(policy)


def decision_of(value: bool) -> Decision:  # noqa: FBT001 - the value of a comparison
    """Return the decision for a value that is known."""
    return _ALLOW if value else _DENY
