"""Every setting, checked once at construction; the issuer and the certs URL derive from the one team domain.

Each setting is described once, at its field; the reference page is made from these descriptions.
"""

import os
import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Never, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fastapi_cloudflare_access._not_a_dependency import forbid_as_dependency
from fastapi_cloudflare_access._setting_hints import (
    WHERE_IS_AUD,
    audience_problem,
    entry_problem,
    team_domain_problem,
    unread_sources,
    unread_variables,
)
from fastapi_cloudflare_access._setting_hints import unknown_setting as hint_unknown_setting
from fastapi_cloudflare_access.errors import ConfigurationError

CERTS_PATH = "/cdn-cgi/access/certs"
"""Path of the certs document, below the issuer."""

GROUP_CLAIMS = ("custom.groups", "groups")
"""Paths of the claims in which groups are looked for, by default."""

DAY = 86_400.0
MAX_PORT = 65_535
ENVIRONMENT_PREFIX = "CF_ACCESS_"
JITTER = 0.1
"""Share by which each pause between refreshes varies."""

PORTS = ("user_model", "fetch", "clock", "listeners")
"""The parameters of `CloudflareAccess` that are objects, and cannot come from the environment."""

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_TEAM_NAME = re.compile(_LABEL)
_TEAM_DOMAIN = re.compile(rf"(?:https://)?({_LABEL}(?:\.fed)?\.cloudflareaccess\.com)")
_LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\]):([1-9][0-9]{0,4})")
_AUDIENCE = re.compile(r"[A-Za-z0-9._~-]{1,256}")
_SCHEME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")

TokenSource = Literal["header", "cookie"]
"""A place that a token may be read from."""


def _issuer_of(team_domain: object) -> str:
    if isinstance(team_domain, str):
        team_domain = team_domain.strip()
        team_domain = team_domain if team_domain.endswith("//") else team_domain.removesuffix("/")
    if not isinstance(team_domain, str):
        raise ValueError("must be text, such as 'acme'; leave it out to read CF_ACCESS_TEAM_DOMAIN")  # noqa: TRY004
    if not team_domain.strip():
        raise ValueError("is blank; set it to your team name, such as 'acme'")
    if _TEAM_NAME.fullmatch(team_domain):
        return f"https://{team_domain}.cloudflareaccess.com"
    if match := _TEAM_DOMAIN.fullmatch(team_domain):
        return f"https://{match[1]}"
    if (match := _LOOPBACK.fullmatch(team_domain)) and int(match[1]) <= MAX_PORT:
        return team_domain
    raise ValueError(team_domain_problem(team_domain))


def _audiences_of(audience: Any) -> tuple[str, ...]:
    tags: Any = audience
    if isinstance(audience, str):
        tags = audience.split(",") if audience.strip() else ()
    if not _is_one_of(tags, list, tuple, set, frozenset):
        raise ValueError("must be the AUD tag of your application, or several; leave it out to read CF_ACCESS_AUDIENCE")
    if not tags:
        raise ValueError("is empty; set it to the AUD tag of your application")
    return tuple(dict.fromkeys(_audience_of(tag) for tag in tags))


def _audience_of(tag: object) -> str:
    if isinstance(tag, list | tuple):
        raise ValueError("has a list as an entry; pass the tags one by one, or as one list")  # noqa: TRY004
    if not isinstance(tag, str):
        raise ValueError("has an entry that is not text; each must be the AUD tag of an application")  # noqa: TRY004
    if not tag.strip():
        raise ValueError("has a blank entry; each must be the AUD tag of an application")
    if not _AUDIENCE.fullmatch(tag.strip()):
        raise ValueError(f"has an entry that {entry_problem(tag.strip())}")
    return tag.strip()


def _is_one_of(value: object, *kinds: type[Any]) -> bool:
    return isinstance(value, kinds)


def _scheme(auth_scheme: str) -> str:
    if not _SCHEME.fullmatch(auth_scheme):
        raise ValueError("must be one HTTP token, such as 'Cloudflare-Access' (RFC 9110 section 5.6.2)")
    return auth_scheme


def _sources(value: Any) -> object:
    named: Any = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
    if not _is_one_of(named, list, tuple) or not named or any(name not in ("header", "cookie") for name in named):
        raise ValueError("must be 'header', 'cookie' or both")
    return tuple(source for source in ("header", "cookie") if source in named)


def _paths(value: Any) -> object:
    named: Any = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
    if not _is_one_of(named, list, tuple) or not named or not all(_is_path(path) for path in named):
        raise ValueError("must be paths of claims, such as 'custom.groups', separated by commas or as a list")
    return tuple(named)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and all(name and name == name.strip() for name in value.split("."))


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic wants a ValueError
    return value


Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_no_boolean)]
Count = Annotated[int, BeforeValidator(_no_boolean)]


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
            raise ConfigurationError("; ".join(_sentence(error, fields) for error in invalid.errors())) from None


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
    if not isinstance(value, KeySettings):
        raise ValueError("must be KeySettings(…), such as KeySettings(refresh_interval=300)")  # noqa: TRY004
    return value


class Settings(_Group):
    """The settings of one `CloudflareAccess`; each is read from `CF_ACCESS_<NAME>` if left out."""

    team_domain: Annotated[str, BeforeValidator(_issuer_of)]
    """The team: `acme`, `acme.cloudflareaccess.com`, or a loopback origin for local work."""
    audience: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_audiences_of)]
    """The AUD tags of the applications whose tokens are accepted; comma-separated in the environment."""
    group_claims: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_paths)] = GROUP_CLAIMS
    """Paths of the claims in which policies look for groups; the first claim that is present decides."""
    token_sources: Annotated[tuple[TokenSource, ...], NoDecode, BeforeValidator(_sources)] = ("header", "cookie")
    """Places that the token is read from; if the header is present, it alone counts."""
    exp_leeway: Number = Field(10.0, ge=0, le=300)
    """Seconds for which a token is accepted after `exp`."""
    nbf_leeway: Number = Field(30.0, ge=0, le=300)
    """Seconds by which `nbf` and `iat` may lie in the future."""
    auth_scheme: Annotated[str, AfterValidator(_scheme)] = "Cloudflare-Access"
    """The auth-scheme of `WWW-Authenticate` (RFC 9110 section 11.1)."""
    token_cache_size: Count = Field(1024, ge=0, le=100_000)
    """Number of verified tokens that are kept, some 3 kB each; 0 for none."""
    key_settings: Annotated[KeySettings, NoDecode, BeforeValidator(_key_settings)] = Field(default_factory=KeySettings)
    """The numbers of the key source; see [`KeySettings`][fastapi_cloudflare_access.settings.KeySettings]."""

    if not TYPE_CHECKING:

        def __init__(self, **options: Any) -> None:
            self._validate(options)

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
        if _LOOPBACK.fullmatch(expected) and expected != self.issuer:
            found.append(
                f"the code sets team_domain to {self.issuer}, and the environment names the local Access {expected}, "
                "whose tokens are rejected: leave team_domain and audience out to read them from the environment"
            )
        if self.is_local:
            found.append(f"the Cloudflare Access team is a local one at {self.issuer}: for development only")
        return found

    @property
    def is_local(self) -> bool:
        """Whether the team is a loopback origin."""
        return self.issuer.startswith("http://")


for _group in (KeySettings, Settings):
    forbid_as_dependency(_group, f"{_group.__name__} never comes from a request: make it where the app is defined")


def _sentence(error: Any, fields: Mapping[str, FieldInfo]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    if error["type"] == "missing":
        variable = f"{ENVIRONMENT_PREFIX}{name.upper()}"
        return f"{name} is missing: pass {name}=… or set {variable}{unread_sources(name)}"
    return f"{name} {message if error['type'] == 'value_error' else _expected(fields[name])}"


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
