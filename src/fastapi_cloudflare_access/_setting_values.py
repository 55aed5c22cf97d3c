"""Parsing of single settings: a function returns the value in one form, or raises an error that says what to write."""

import re
from typing import Any

from fastapi_cloudflare_access._setting_hints import entry_problem, team_domain_problem

MAX_PORT = 65_535

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_TEAM_NAME = re.compile(_LABEL)
_TEAM_DOMAIN = re.compile(rf"(?:https://)?({_LABEL}(?:\.fed)?\.cloudflareaccess\.com)")
LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\]):([1-9][0-9]{0,4})")
_AUDIENCE = re.compile(r"[A-Za-z0-9._~-]{1,256}")
_SCHEME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")


def issuer_of(team_domain: object) -> str:
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
    if (match := LOOPBACK.fullmatch(team_domain)) and int(match[1]) <= MAX_PORT:
        return team_domain
    raise ValueError(team_domain_problem(team_domain))


def former_issuers(names: Any) -> tuple[str, ...]:
    given: Any = names
    if isinstance(names, str):
        given = names.split(",") if names.strip() else ()
    if not _is_one_of(given, list, tuple):
        raise ValueError("must be the names that the team had before, separated by commas or as a list")
    if not all(isinstance(name, str) and name.strip() for name in given):
        raise ValueError("has an entry that is blank or not text; each must be a name that the team had before")
    try:
        return tuple(dict.fromkeys(map(issuer_of, given)))
    except ValueError as problem:
        raise ValueError(f"has an entry that {problem}") from None


def audiences_of(audience: Any) -> tuple[str, ...]:
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


def auth_scheme_of(auth_scheme: str) -> str:
    if not _SCHEME.fullmatch(auth_scheme):
        raise ValueError("must be one HTTP token, such as 'Cloudflare-Access' (RFC 9110 section 5.6.2)")
    return auth_scheme


def token_sources_of(value: Any) -> object:
    named: Any = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
    if not _is_one_of(named, list, tuple) or not named or any(name not in ("header", "cookie") for name in named):
        raise ValueError("must be 'header', 'cookie' or both")
    return tuple(source for source in ("header", "cookie") if source in named)


def claim_paths_of(value: Any) -> object:
    named: Any = tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
    if not _is_one_of(named, list, tuple) or not named or not all(_is_path(path) for path in named):
        raise ValueError("must be paths of claims, such as 'custom.groups', separated by commas or as a list")
    return tuple(named)


def recheck_choice_of(value: object) -> object:
    if value not in ("allow", "deny", "", None):
        raise ValueError("must be 'allow' or 'deny'")
    return value or None


def unavailable_choice_of(value: object) -> object:
    """Return the choice for the time in which revocations cannot be read: `open`, `closed`, or None.

    Raises:
        ValueError: It is something else.
    """
    if value not in ("open", "closed", "", None):
        raise ValueError("must be 'open' or 'closed'")
    return value or None


def _is_path(value: object) -> bool:
    return isinstance(value, str) and all(name and name == name.strip() for name in value.split("."))


def not_a_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")  # noqa: TRY004 - pydantic wants a ValueError
    return value
