"""The words for wrong settings: what is wrong, and what to write instead."""

import os
import re
import unicodedata
from collections.abc import Collection, Mapping

WRITE_TEAM = "write the team name, such as 'acme', or its team domain"
WHERE_IS_AUD = "copy the Application Audience (AUD) Tag of the application in Zero Trust"
WITHOUT_QUOTES = "remove the quotes, which docker run --env-file keeps"
QUOTES = ("'", '"')
MAX_TEAM_NAME = 63
MAX_AUDIENCE = 256
AUD_DIGITS = 64

_TEAM_SUFFIX = ".cloudflareaccess.com"
_LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_AUD_TAG = re.compile(r"[0-9a-f]{64}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)

_ALIASES = {
    "audience": "aud auds aud_tag aud_tags audiences audience_tag policy_aud app_aud application_aud client_id",
    "team_domain": "team team_name teamname team_url team_domains domain auth_domain access_domain issuer iss "
    "organization organisation certs_url jwks_url jwks_uri",
    "former_team_domains": "former_team former_teams former_issuers old_team_domain old_team_domains other_issuers",
    "recheck_session": "recheck recheck_interval session_recheck check_session identity_ttl",
    "exp_leeway or nbf_leeway": "leeway clock_skew skew clock_skew_seconds",
    "user_model": "user_claims claims_model claims model user_class",
    "token_sources": "token_source sources header_name cookie_name",
    "auth_scheme": "challenge scheme realm www_authenticate",
    "token_cache_size": "cache cache_size token_cache",
    "fetch": "client http_client transport fetcher session",
    "listeners": "listener event_listeners on_event on_events callbacks",
    "snapshot_store": "store key_store redis redis_url cache_store shared_keys",
    "revocation_store": "revocations revocation revocation_list revoked denylist blocklist",
    "revocations_unavailable": "revocation_unavailable revocations_fail revocation_store_unavailable on_unavailable",
    "refresh_interval": "ttl cache_ttl jwks_cache_ttl jwks_ttl refresh lifespan refresh_seconds",
    "fetch_timeout": "timeout http_timeout request_timeout",
    "fail_fast": "strict fail_on_startup",
}
_SETTING_OF = {alias: setting for setting, aliases in _ALIASES.items() for alias in aliases.split()}
_PREFIXES = ("cf_access_", "cloudflare_access_", "cf_", "cloudflare_", "access_")
_KNOWN_VARIABLES = ("policy_aud", "team_domain", "team_name", "aud_tag")
"""Variables without a prefix that Cloudflare's examples and other packages read."""


def is_placeholder(value: str) -> bool:
    """Check whether a value is what documentation shows in place of one: `…`, `...`, `<aud>` or `32ea…4228`."""
    return "…" in value or "..." in value or (value[:1] == "<" and value[-1:] == ">")


def team_domain_problem(team_domain: str) -> str:
    """Return why a text is not a team name, a team domain or a loopback origin; it begins with a verb."""
    scheme, separator, rest = team_domain.rpartition("://")
    wrong = next((character for character in team_domain if not character.isascii() or character <= " "), None)
    if wrong or is_placeholder(team_domain):
        problem = "is still a placeholder" if is_placeholder(team_domain) else f"contains {_describe(str(wrong))}"
        return f"{problem}; {WRITE_TEAM}"
    host = re.sub(r":[0-9]*$", "", rest)
    if host in _LOOPBACK_HOSTS:
        if scheme != "http":
            return f"is a loopback host; write http://{host}:PORT"
        return f"must have a port from 1 to 65535; write http://{host}:PORT"
    if separator and scheme != "https":
        return f"must begin with https://, since plain http is for loopback origins only; {WRITE_TEAM}"
    upper_case = re.search("[A-Z]", rest)
    if upper_case and re.fullmatch(r"[A-Za-z0-9.-]+", rest):
        return f"contains the upper-case letter '{upper_case[0]}'; write it in lower case"
    return f"{_host_problem(rest)}; {WITHOUT_QUOTES if rest[:1] in QUOTES else WRITE_TEAM}"


def _host_problem(rest: str) -> str:
    if wrong := re.search(r"[^A-Za-z0-9.-]", rest):
        parts = {"/": "a path", ":": "a port", "?": "a query", "#": "a fragment"}
        return f"has {parts[wrong[0]]}" if wrong[0] in parts and wrong.start() else f"contains {_describe(wrong[0])}"
    if rest.endswith("."):
        return "ends with a dot"
    return _team_name_problem(rest)


def _team_name_problem(rest: str) -> str:
    name = rest.removesuffix(_TEAM_SUFFIX).removesuffix(".fed")
    if "." in name and rest.endswith(_TEAM_SUFFIX):
        return f"has more than a team name before {_TEAM_SUFFIX}"
    if "." in name:
        return "is not below cloudflareaccess.com, where Access publishes its keys, even for an app on another domain"
    if len(name) > MAX_TEAM_NAME:
        return f"is longer than the {MAX_TEAM_NAME} characters of a team name"
    return "begins or ends with '-'" if name else "has no team name"


def _describe(character: str) -> str:
    if character == " ":
        return "a blank"
    if character in "\r\n":
        return "a line break"
    if character.isascii():
        return f"the character {character!r}"
    return f"the character {character!a} ({unicodedata.name(character, 'unnamed')})"


def entry_problem(tag: str) -> str:
    """Return why an entry of `audience` can never be one; it begins with a verb."""
    if is_placeholder(tag):
        return f"is still a placeholder; {WHERE_IS_AUD}"
    if tag[0] in QUOTES:
        return f"begins with a quote; {WITHOUT_QUOTES}"
    if " " in tag or ";" in tag:
        return "contains a blank or a semicolon; separate tags with commas"
    wrong = next((character for character in tag if not re.match(r"[A-Za-z0-9._~-]", character)), None)
    problem = f"contains {_describe(wrong)}" if wrong else f"is longer than {MAX_AUDIENCE} characters"
    return f"{problem}; {WHERE_IS_AUD}"


def audience_problem(tag: str) -> str | None:
    """Return why a text is not an AUD tag (64 lower-case hexadecimal digits), or None."""
    if _AUD_TAG.fullmatch(tag):
        return None
    if _UUID.fullmatch(tag):
        return "it looks like the application's id"
    if _AUD_TAG.fullmatch(tag.lower()):
        return "it has upper-case letters"
    if len(tag) == AUD_DIGITS:
        wrong = next(character for character in tag if character not in "0123456789abcdef")
        return f"it contains {_describe(wrong)}, which is not a hexadecimal digit"
    return f"it has {len(tag)} character{'' if len(tag) == 1 else 's'}, not 64 hexadecimal digits"


def unknown_setting(name: str, group: str, parameters: Mapping[str, Collection[str]]) -> str:
    """Return the error message for a setting that does not exist.

    Args:
        name: The unknown name.
        group: The class that it was given to.
        parameters: The parameters of each class.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - for this error only

    plain = _without_prefix(name.lower())
    if plain in ("algorithms", "algorithm", "alg"):
        return f"there is no setting {name}: only RS256 is accepted, so leave it out"
    known = [setting for settings in parameters.values() for setting in settings]
    closest = plain if plain in known else _SETTING_OF.get(plain)
    closest = closest or next(iter(get_close_matches(plain, known)), None)
    if closest is None:
        return f"there is no setting {name}; help({group}) lists the settings"
    owner = next((owner for owner, settings in parameters.items() if closest in settings), group)
    if owner == group:
        return f"there is no setting {name}; did you mean {closest}?"
    call = f"{owner}({closest}=…)"
    return f"{name} is not a setting of {group}; write {'key_settings=' if owner == 'KeySettings' else ''}{call}"


def _without_prefix(name: str) -> str:
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    return name.removeprefix(prefix)


def unread_variables(settings: Collection[str]) -> list[str]:
    """Return a sentence for each environment variable that is not read, and nearly has the name of one that is."""
    read = {f"CF_ACCESS_{name.upper()}" for name in settings}
    others = sorted(name for name in os.environ if name.startswith("CF_ACCESS_") and name not in read)
    if not others:
        return []
    from difflib import get_close_matches  # noqa: PLC0415 - for such a variable only

    return [
        f"the environment variable {variable} is not read; did you mean {closest}?"
        for variable in others
        for closest in get_close_matches(variable, read, n=1, cutoff=0.9)
    ]


def unread_sources(setting: str) -> str:
    """Return a note about a similar environment variable and an `.env` file, which are not read; else nothing."""
    notes = [f"{name} is set, and is not read" for name in os.environ if _names(name.lower(), setting)][:1]
    if os.path.isfile(".env"):  # noqa: PTH113 - a Path raises if the folder cannot be read
        notes.append("the file .env is not read by itself: load it, such as with uvicorn --env-file .env")
    return f" ({'; '.join(notes)})" if notes else ""


def _names(variable: str, setting: str) -> bool:
    plain = _without_prefix(variable)
    if variable == f"cf_access_{setting}" or (plain == variable and variable not in _KNOWN_VARIABLES):
        return False
    return plain == setting or _SETTING_OF.get(plain) == setting
