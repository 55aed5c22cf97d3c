"""Every setting, checked once at construction; the issuer and the certs URL derive from the one team domain.

Each setting is described once, at its field; the reference page is made from these descriptions.
"""

import os
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Never, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fastapi_cloudflare_access._not_a_dependency import forbid_as_dependency
from fastapi_cloudflare_access._setting_hints import (
    WHERE_IS_AUD,
    audience_problem,
    unread_sources,
    unread_variables,
)
from fastapi_cloudflare_access._setting_hints import unknown_setting as hint_unknown_setting
from fastapi_cloudflare_access._setting_values import (
    LOOPBACK,
    audiences_of,
    auth_scheme_of,
    claim_paths_of,
    former_issuers,
    issuer_of,
    not_a_boolean,
    recheck_choice_of,
    token_sources_of,
    unavailable_choice_of,
)
from fastapi_cloudflare_access.errors import ConfigurationError

CERTS_PATH = "/cdn-cgi/access/certs"
"""Path of the certs document, below the issuer."""

IDENTITY_PATH = "/cdn-cgi/access/get-identity"
"""Path of the identity document, below the issuer."""

GROUP_CLAIMS = ("custom.groups", "groups")
"""Paths of the claims in which groups are looked for, by default."""

DAY = 86_400.0
SHORTEST_RECHECK = 5.0
"""Seconds that `recheck_session` must be at least, if sessions are checked."""
ENVIRONMENT_PREFIX = "CF_ACCESS_"
_LOCAL_APPS = "http://localhost:"
JITTER = 0.1
"""Share by which each pause between refreshes varies."""

PORTS = ("user_model", "fetch", "clock", "listeners", "snapshot_store", "revocation_store")
"""The parameters of `CloudflareAccess` that are objects, and cannot come from the environment."""

TokenSource = Literal["header", "cookie"]
"""A place that a token may be read from."""

TOKEN_SOURCES: tuple[TokenSource, ...] = ("header", "cookie")


Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(not_a_boolean)]
Count = Annotated[int, BeforeValidator(not_a_boolean)]


class LeftOut:
    """The default of a parameter that is read from the environment if it is left out."""

    def __init__(self, default: object) -> None:
        """Store the default for the case that the environment does not set it either."""
        self.default = default

    def __repr__(self) -> str:
        return repr(self.default)


def left_out(default: object = ...) -> Any:
    """Return the default of a parameter; signatures show it as `default`."""
    return LeftOut(default)


class _Group(BaseSettings):
    """Settings that are read from `CF_ACCESS_<NAME>` if they are left out.

    A wrong value raises `ConfigurationError` at construction; the message says what to set.
    """

    model_config = SettingsConfigDict(
        frozen=True, env_prefix=ENVIRONMENT_PREFIX, extra="forbid", hide_input_in_errors=True, validate_default=True
    )

    @classmethod
    def load(cls, **options: Any) -> Self:
        """Return the settings: the given options, and the rest from the environment and the defaults.

        Raises:
            ConfigurationError: One sentence for each setting that is missing or wrong.
        """
        return cls(**options)

    def _validate(self, options: dict[str, Any]) -> None:
        given = {name: value for name, value in options.items() if not isinstance(value, LeftOut)}
        if unknown := sorted(given.keys() - type(self).model_fields.keys()):  # BaseSettings accepts some more
            raise ConfigurationError("; ".join(unknown_setting(name, type(self).__name__) for name in unknown))
        try:
            super().__init__(**given)
        except ValidationError as invalid:
            fields = type(self).model_fields
            errors = invalid.errors()
            raise ConfigurationError("; ".join(_sentence(error, fields, given) for error in errors)) from None


class KeySettings(_Group):
    """The settings of the key source; each is read from `CF_ACCESS_<NAME>` if left out.

    Durations are in seconds.
    """

    refresh_interval: Number = Field(600.0, ge=60, le=3600)
    """Seconds between two fetches of the keys; bounds how long a withdrawn key is accepted."""
    max_staleness: Number = Field(DAY, gt=0, le=7 * DAY)
    """Age of the keys, in seconds, after which every request gets 503."""
    degraded_after: Number = Field(1800.0, gt=0, le=7 * DAY)
    """Age of the keys, in seconds, after which `health()` reports `degraded`; they are still used."""
    fetch_timeout: Number = Field(5.0, gt=0, le=30)
    """Seconds that one fetch may take, a second attempt included."""
    key_wait_timeout: Number = Field(3.0, ge=0, le=10)
    """Seconds that a request waits for the fetch of an unknown key before it gets 503."""
    removal_grace: Number = Field(30.0, ge=0, le=600)
    """Seconds after which a second fetch confirms that a key is no longer published; 0 removes it at once."""
    unknown_kid_burst: Count = Field(3, ge=1, le=10)
    """Number of fetches that unknown keys may cause in a row."""
    unknown_kid_interval: Number = Field(5.0, ge=1, le=300)
    """Seconds after which unknown keys may cause one more fetch."""
    startup_timeout: Number = Field(10.0, ge=0, le=120)
    """Seconds that the lifespan tries to fetch the keys before the app starts without them."""
    fail_fast: bool = False
    """Whether the app refuses to start without keys."""

    def __init__(  # noqa: PLR0913 - every setting is visible in the signature
        self,
        *,
        refresh_interval: float = left_out(600.0),
        max_staleness: float = left_out(86_400.0),
        degraded_after: float = left_out(1800.0),
        fetch_timeout: float = left_out(5.0),
        key_wait_timeout: float = left_out(3.0),
        removal_grace: float = left_out(30.0),
        unknown_kid_burst: int = left_out(3),
        unknown_kid_interval: float = left_out(5.0),
        startup_timeout: float = left_out(10.0),
        fail_fast: bool = left_out(default=False),
        **unknown: Never,
    ) -> None:
        options = {name: value for name, value in locals().items() if name in type(self).model_fields}
        self._validate(options | unknown)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        longest = self.refresh_interval * (1 + JITTER)
        if not longest <= self.degraded_after <= self.max_staleness:
            raise ValueError(
                "degraded_after must be between the longest pause between refreshes "
                f"(refresh_interval plus a tenth: {longest:g}) and max_staleness ({self.max_staleness:g})"
            )
        if self.unknown_kid_interval > self.refresh_interval / 2:
            raise ValueError(
                "unknown_kid_interval must be at most half of refresh_interval "
                f"({self.refresh_interval / 2:g}), since both take from one allowance of fetches"
            )
        if self.fail_fast and not self.startup_timeout:
            raise ValueError("startup_timeout must not be 0 if fail_fast is set")
        return self


def _key_settings(value: object) -> object:
    if isinstance(value, str):
        raise ValueError(  # noqa: TRY004
            "cannot be text: write key_settings=KeySettings(refresh_interval=300), "
            "or set CF_ACCESS_REFRESH_INTERVAL=300"
        )
    if not isinstance(value, KeySettings):
        raise ValueError("must be KeySettings(…), such as KeySettings(refresh_interval=300)")  # noqa: TRY004
    return value


class Settings(_Group):
    """The settings of one `CloudflareAccess`; each is read from `CF_ACCESS_<NAME>` if left out."""

    team_domain: Annotated[str, BeforeValidator(issuer_of)]
    """The team: `acme`, `acme.cloudflareaccess.com`, or a loopback origin for local work."""
    audience: Annotated[tuple[str, ...], NoDecode, BeforeValidator(audiences_of)]
    """The AUD tags of the applications whose tokens are accepted; comma-separated in the environment."""
    former_team_domains: Annotated[tuple[str, ...], NoDecode, BeforeValidator(former_issuers)] = ()
    """Names that the team had before; tokens with these issuers are accepted over the team's own keys."""
    group_claims: Annotated[tuple[str, ...], NoDecode, BeforeValidator(claim_paths_of)] = GROUP_CLAIMS
    """Paths of the claims in which policies look for groups; the first claim that is present decides."""
    token_sources: Annotated[tuple[TokenSource, ...], NoDecode, BeforeValidator(token_sources_of)] = TOKEN_SOURCES
    """Places that the token is read from; if the header is present, it alone counts."""
    exp_leeway: Number = Field(10.0, ge=0, le=300)
    """Seconds for which a token is accepted after `exp`."""
    nbf_leeway: Number = Field(30.0, ge=0, le=300)
    """Seconds by which `nbf` and `iat` may lie in the future."""
    auth_scheme: Annotated[str, AfterValidator(auth_scheme_of)] = "Cloudflare-Access"
    """The auth-scheme of `WWW-Authenticate` (RFC 9110 section 11.1)."""
    token_cache_size: Count = Field(1024, ge=0, le=100_000)
    """Number of verified tokens that are kept, some 3 kB each; 0 for none."""
    recheck_session: Number = Field(0.0, ge=0, le=DAY)
    """Seconds after which a user's session is checked again at get-identity, for each token; 0 for never."""
    recheck_unavailable: Annotated[Literal["allow", "deny"] | None, BeforeValidator(recheck_choice_of)] = None
    """The fate of users whose session cannot be checked: `allow` or `deny`; no default with `recheck_session`."""
    recheck_grace: Number = Field(0.0, ge=0, le=7 * DAY)
    """Seconds for which `recheck_unavailable="allow"` admits a user after the check was due."""
    revocations_unavailable: Annotated[Literal["open", "closed"] | None, BeforeValidator(unavailable_choice_of)] = None
    """The answer while revocations cannot be read: `open` accepts tokens, `closed` is 503; no default with a store."""
    key_settings: Annotated[KeySettings, NoDecode, BeforeValidator(_key_settings)] = Field(default_factory=KeySettings)
    """The numbers of the key source; see [`KeySettings`][fastapi_cloudflare_access.settings.KeySettings]."""

    if not TYPE_CHECKING:

        def __init__(self, **options: Any) -> None:
            self._validate(options)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.issuer in self.former_team_domains:
            raise ValueError(f"former_team_domains has the current team domain {self.issuer}: remove it there")
        if any(issuer.startswith("http://") != self.is_local for issuer in self.former_team_domains):
            raise ValueError("former_team_domains must not have a loopback origin beside a real team, or the reverse")
        if not self.recheck_session and (self.recheck_unavailable or self.recheck_grace):
            raise ValueError("recheck_unavailable and recheck_grace need recheck_session: set it, or leave them out")
        if self.recheck_session and self.recheck_session < SHORTEST_RECHECK:
            raise ValueError(f"recheck_session must be 0 or from {SHORTEST_RECHECK:g} seconds")
        if self.recheck_session and not self.recheck_unavailable:
            raise ValueError(
                "recheck_session needs recheck_unavailable, which says what happens when sessions cannot be checked: "
                "'deny', or 'allow' with recheck_grace"
            )
        if self.recheck_unavailable == "allow" and not self.recheck_grace:
            raise ValueError("recheck_unavailable='allow' needs recheck_grace, the seconds for which it holds")
        if self.recheck_unavailable == "deny" and self.recheck_grace:
            raise ValueError("recheck_grace has no meaning with recheck_unavailable='deny': leave it out")
        return self

    def with_audience(self, audience: tuple[str, ...]) -> Self:
        """Return the same settings for other audiences.

        Raises:
            ConfigurationError: An audience is missing or wrong.
        """
        same = {name: getattr(self, name) for name in type(self).model_fields}
        return self.load(**same | {"audience": audience})

    @property
    def issuer(self) -> str:
        """The value that `iss` must have, byte for byte."""
        return self.team_domain

    @cached_property
    def identity_url(self) -> str:
        """The URL of the identity of a token's user."""
        return self.issuer + IDENTITY_PATH

    @cached_property
    def certs_url(self) -> str:
        """The URL of the certs document."""
        return self.issuer + CERTS_PATH

    @cached_property
    def audience_tags(self) -> frozenset[str]:
        """The AUD tags, as a set."""
        return frozenset(self.audience)

    @property
    def warnings(self) -> list[str]:
        """One sentence for each setting that is accepted and is probably wrong, or for development only."""
        problems = [(tag, audience_problem(tag)) for tag in self.audience]
        found = [f"audience {tag[:8]}… is not an AUD tag: {why}; {WHERE_IS_AUD}" for tag, why in problems if why]
        found += unread_variables([*Settings.model_fields, *KeySettings.model_fields])
        expected = os.environ.get(f"{ENVIRONMENT_PREFIX}TEAM_DOMAIN", "")
        if LOOPBACK.fullmatch(expected) and expected != self.issuer:
            found.append(
                f"the code sets team_domain to {self.issuer}, and the environment names the local Access {expected}, "
                "whose tokens are rejected: leave team_domain and audience out to read them from the environment"
            )
        if self.is_local:
            found.append(
                f"the Cloudflare Access team is a local one at {self.issuer}: for development only{self._hint}"
            )
        return found

    @property
    def _hint(self) -> str:
        """The team of the local Access, if the issuer is the host at which it serves apps; else nothing."""
        port = self.issuer.removeprefix(_LOCAL_APPS)
        return f"; the local Access of this package is the team http://127.0.0.1:{port}" if port != self.issuer else ""

    @property
    def is_local(self) -> bool:
        """Whether the team is a loopback origin."""
        return self.issuer.startswith("http://")


for _group in (KeySettings, Settings):
    forbid_as_dependency(_group, f"{_group.__name__} never comes from a request: make it where the app is defined")


def _sentence(error: Any, fields: Mapping[str, FieldInfo], given: Collection[str]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    variable = f"{ENVIRONMENT_PREFIX}{name.upper()}"
    if error["type"] == "missing":
        return f"{name} is missing: pass {name}=… or set {variable}{unread_sources(name)}"
    named = variable if name not in given and variable in os.environ else name
    return f"{named} {message if error['type'] == 'value_error' else _expected(fields[name])}"


def _expected(field: FieldInfo) -> str:
    """Return what a setting must be, with its bounds."""
    numbers: dict[Any, str] = {int: "a whole number", float: "a number"}
    if (number := numbers.get(field.annotation)) is None:
        return "must be true or false" if field.annotation is bool else "must be text"
    bounds = {
        name: value
        for part in field.metadata
        for name in ("gt", "ge", "le")
        if (value := getattr(part, name, None)) is not None
    }
    lowest = f"above {bounds['gt']:g}" if "gt" in bounds else f"from {bounds['ge']:g}"
    return f"must be {number} {lowest} {'up ' if 'gt' in bounds else ''}to {bounds['le']:g}"


def unknown_setting(name: str, group: str) -> str:
    """Return the error message for a setting that `CloudflareAccess` or `KeySettings` does not have."""
    parameters = {"CloudflareAccess": [*Settings.model_fields, *PORTS], "KeySettings": [*KeySettings.model_fields]}
    return hint_unknown_setting(name, group if group in parameters else "CloudflareAccess", parameters)
