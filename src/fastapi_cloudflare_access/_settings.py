"""Every setting, checked once at construction; the issuer and the certs URL derive from the one team domain."""

import re
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypedDict, Unpack

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fastapi_cloudflare_access.errors import ConfigurationError

CERTS_PATH = "/cdn-cgi/access/certs"
"""Where a team publishes its keys, below the issuer."""

DAY = 86_400.0
MAX_PORT = 65_535
MAX_PAUSES = 16
ENVIRONMENT_PREFIX = "CF_ACCESS_"

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_TEAM_NAME = re.compile(_LABEL)
_TEAM_DOMAIN = re.compile(rf"(?:https://)?({_LABEL}(?:\.fed)?\.cloudflareaccess\.com)")
_LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\]):([1-9][0-9]{0,4})")
_AUDIENCE = re.compile(r"[A-Za-z0-9._~-]{1,256}")
_SCHEME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")

TokenSource = Literal["header", "cookie"]
"""Where a token may be read from."""


def _issuer_of(team_domain: object) -> str:
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
    raise ValueError(
        "must be a team name ('acme'), a team domain ('acme.cloudflareaccess.com'), "
        "or a loopback origin for local work ('http://127.0.0.1:PORT'), in lower case and with nothing after it"
    )


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
    if not isinstance(tag, str):
        raise ValueError("has an entry that is no text; each must be the AUD tag of an application")  # noqa: TRY004
    if not tag.strip():
        raise ValueError("has a blank entry; each must be the AUD tag of an application")
    if not _AUDIENCE.fullmatch(tag.strip()):
        raise ValueError("has an entry that is no AUD tag; copy it from the application's overview, without quotes")
    return tag.strip()


def _is_one_of(value: object, *kinds: type[Any]) -> bool:
    return isinstance(value, kinds)


def _scheme(challenge: str) -> str:
    if not _SCHEME.fullmatch(challenge):
        raise ValueError("must be one HTTP token, such as 'Cloudflare-Access' (RFC 9110 section 5.6.2)")
    return challenge


def _sources(value: Any) -> object:
    named: Any = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
    if not _is_one_of(named, list, tuple) or not named or any(name not in ("header", "cookie") for name in named):
        raise ValueError("must be 'header', 'cookie' or both")
    return tuple(source for source in ("header", "cookie") if source in named)


def _pauses(value: Any) -> object:
    pauses: Any = value.split(",") if isinstance(value, str) else value
    if not _is_one_of(pauses, list, tuple) or not 1 <= len(pauses) <= MAX_PAUSES:
        raise ValueError("must be 1 to 16 numbers of seconds, such as '1,2,5,15,60'")
    return tuple(pauses)


def _rising(pauses: tuple[float, ...]) -> tuple[float, ...]:
    if pauses[0] < 1 or pauses[-1] > DAY or list(pauses) != sorted(pauses):
        raise ValueError(f"must rise, from 1 at least to {DAY:.0f} at most")
    return pauses


def _no_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic wants a ValueError
    return value


Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_no_boolean)]
Count = Annotated[int, BeforeValidator(_no_boolean)]


class Options(TypedDict, total=False):
    """What `CloudflareAccess` takes by keyword; each is described at [`Settings`][]."""

    team_domain: str
    audience: str | list[str] | tuple[str, ...]
    token_sources: tuple[TokenSource, ...]
    challenge: str
    exp_leeway: float
    nbf_leeway: float
    token_cache_size: int
    refresh_interval: float
    jitter: float
    connect_timeout: float
    read_timeout: float
    fetch_timeout: float
    fetch_retries: int
    wait_budget: float
    backoff_cap: float
    cold_backoff_cap: float
    startup_timeout: float
    startup_attempts: int
    fail_fast: bool
    soft_staleness: float
    max_staleness: float
    confirm_removals: bool
    removal_delay: float
    unknown_key_burst: int
    unknown_key_interval: float
    unknown_key_gap: float
    unknown_key_schedule: str | list[float] | tuple[float, ...]
    unknown_key_memory: int
    max_document_size: int
    max_keys: int


class Settings(BaseSettings):
    """The settings; each left out is read from the environment variable `CF_ACCESS_<NAME>`.

    Durations are in seconds. A wrong value stops at construction with a `ConfigurationError` that says what to set.
    """

    model_config = SettingsConfigDict(
        frozen=True, env_prefix=ENVIRONMENT_PREFIX, extra="forbid", hide_input_in_errors=True, validate_default=True
    )

    team_domain: Annotated[str, BeforeValidator(_issuer_of)]
    """The team: `acme`, `acme.cloudflareaccess.com`, or a loopback origin. Read it back as `issuer`."""
    audience: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_audiences_of)]
    """The AUD tags of the applications whose tokens are let in; comma-separated in the environment."""
    token_sources: Annotated[tuple[TokenSource, ...], NoDecode, BeforeValidator(_sources)] = ("header", "cookie")
    """Where a token is read from; the header alone counts where it is there."""
    challenge: Annotated[str, AfterValidator(_scheme)] = "Cloudflare-Access"
    """The scheme of `WWW-Authenticate`."""

    exp_leeway: Number = Field(10.0, ge=0, le=300)
    """How long after `exp` a token still passes."""
    nbf_leeway: Number = Field(30.0, ge=0, le=300)
    """How far `nbf` and `iat` may lie ahead."""
    token_cache_size: Count = Field(0, ge=0, le=100_000)
    """How many verified tokens are kept, so that their signature is checked once; 0 for none, some 3 kB each."""

    refresh_interval: Number = Field(600.0, ge=60, le=3600)
    """How often the keys are fetched; bounds how long a withdrawn key is honoured."""
    jitter: Number = Field(0.1, ge=0, le=0.5)
    """By which share each sleep between refreshes varies."""
    connect_timeout: Number = Field(2.0, gt=0, le=30)
    """How long the default fetch waits for a connection."""
    read_timeout: Number = Field(3.0, gt=0, le=30)
    """How long the default fetch waits for each piece of the answer."""
    fetch_timeout: Number = Field(5.0, gt=0, le=30)
    """How long one whole fetch may take, a second try included."""
    fetch_retries: Count = Field(1, ge=0, le=1)
    """How often a fetch is tried again at once where the connection failed."""
    wait_budget: Number = Field(3.0, ge=0, le=10)
    """How long a request waits for a key it does not know before it gets 503."""
    backoff_cap: Number = Field(60.0, ge=1, le=600)
    """The longest pause between failing fetches while there are keys."""
    cold_backoff_cap: Number = Field(5.0, ge=1, le=60)
    """The longest pause between failing fetches while there are none."""
    startup_timeout: Number = Field(10.0, ge=0, le=120)
    """How long the lifespan tries to get keys before the app starts without."""
    startup_attempts: Count = Field(3, ge=1, le=10)
    """How often it tries in that time."""
    fail_fast: bool = False
    """Whether the lifespan refuses to start without keys."""
    soft_staleness: Number = Field(1800.0, gt=0, le=7 * DAY)
    """From which age of the keys on health says `degraded`."""
    max_staleness: Number = Field(DAY, gt=0, le=7 * DAY)
    """From which age of the keys on no token passes any more (503)."""
    confirm_removals: bool = True
    """Whether a key leaves only after two good fetches without it."""
    removal_delay: Number = Field(30.0, ge=1, le=600)
    """How long after a key went missing the fetch that confirms it is made."""
    unknown_key_burst: Count = Field(3, ge=1, le=10)
    """How many fetches unknown keys may cause at once."""
    unknown_key_interval: Number = Field(5.0, ge=1, le=300)
    """How often one more such fetch is allowed."""
    unknown_key_gap: Number = Field(1.0, ge=0.1, le=60)
    """The least time between two starts of a fetch."""
    unknown_key_schedule: Annotated[tuple[Number, ...], NoDecode, BeforeValidator(_pauses), AfterValidator(_rising)] = (
        1.0,
        2.0,
        5.0,
        15.0,
        60.0,
    )
    """How long a key that was not found is refused without looking again, after the first, second, … time."""
    unknown_key_memory: Count = Field(256, ge=16, le=4096)
    """How many such keys are remembered."""
    max_document_size: Count = Field(65_536, ge=16_384, le=1_048_576)
    """How many bytes a certs document may have."""
    max_keys: Count = Field(32, ge=4, le=256)
    """How many entries a certs document may have."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        longest = self.refresh_interval * (1 + self.jitter)
        if not longest <= self.soft_staleness <= self.max_staleness:
            raise ValueError(
                "soft_staleness must lie between the longest pause between refreshes "
                f"(refresh_interval and jitter: {longest:g}) and max_staleness ({self.max_staleness:g})"
            )
        if self.unknown_key_interval > self.refresh_interval / 2:
            raise ValueError(
                "unknown_key_interval must be at most half of refresh_interval "
                f"({self.refresh_interval / 2:g}), since both take from one allowance of fetches"
            )
        if self.fail_fast and not self.startup_timeout:
            raise ValueError("startup_timeout must not be 0 where fail_fast is set")
        return self

    @classmethod
    def load(cls, **options: Unpack[Options]) -> Self:
        """Take the given options, and the rest from the environment and the defaults.

        Raises:
            ConfigurationError: One sentence for each setting that is missing or wrong.
        """
        given: dict[str, Any] = {**options}
        if unknown := sorted(given.keys() - cls.model_fields.keys()):  # BaseSettings itself would take some more
            raise ConfigurationError("; ".join(f"there is no setting {name}{_suggestion(name)}" for name in unknown))
        try:
            return cls(**given)
        except ValidationError as invalid:
            raise ConfigurationError("; ".join(_sentence(error) for error in invalid.errors())) from None

    def with_audience(self, audience: tuple[str, ...]) -> Self:
        """Give the same settings for other audiences.

        Raises:
            ConfigurationError: An audience is missing or wrong.
        """
        options: Any = self.model_dump() | {"audience": audience}
        return self.load(**options)

    @property
    def issuer(self) -> str:
        """What `iss` must be, byte for byte."""
        return self.team_domain

    @cached_property
    def certs_url(self) -> str:
        """Where the keys are."""
        return self.issuer + CERTS_PATH

    @cached_property
    def audience_tags(self) -> frozenset[str]:
        """The AUD tags, for looking one up."""
        return frozenset(self.audience)

    @property
    def is_local(self) -> bool:
        """Whether the team is a loopback one."""
        return self.issuer.startswith("http://")


def _sentence(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name = str(error["loc"][0])
    if error["type"] == "missing":
        return f"{name} is missing: pass {name}=… or set {ENVIRONMENT_PREFIX}{name.upper()}"
    return f"{name} {message}" if message[0].islower() else f"{name}: {message}"


def _suggestion(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - for mistakes alone

    close = get_close_matches(name, Settings.model_fields, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(Settings.model_fields)}"
