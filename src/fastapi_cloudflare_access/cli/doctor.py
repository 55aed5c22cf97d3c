"""`cf-access doctor`: checks from the settings to the token, in the order in which verification needs them."""

import asyncio
import re
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from fastapi_cloudflare_access._keys.environment import (
    EnvironmentProblem,
    ca_certificates,
    excluding_entry,
    proxy_for,
)
from fastapi_cloudflare_access._keys.http import httpx_proxy, load_tls
from fastapi_cloudflare_access._keys.jwks import JwksProblem, parse_jwks
from fastapi_cloudflare_access._setting_hints import WHERE_IS_AUD, audience_problem
from fastapi_cloudflare_access.cli.certs import FetchResult, explain_failure, fetch_certs
from fastapi_cloudflare_access.cli.configuration import Configuration
from fastapi_cloudflare_access.cli.edge_cache import check_edge_cache
from fastapi_cloudflare_access.cli.formatting import duration, plural, printable, short
from fastapi_cloudflare_access.cli.inspection import inspect_given
from fastapi_cloudflare_access.cli.key_description import describe_keys
from fastapi_cloudflare_access.cli.output import Screen
from fastapi_cloudflare_access.cli.reports import Key, Status, Step
from fastapi_cloudflare_access.cli.tokens import GivenToken
from fastapi_cloudflare_access.cli.verify import UNCHECKED, Certs, verify_given
from fastapi_cloudflare_access.protocols import Clock, Fetch
from fastapi_cloudflare_access.settings import Settings

SKEW_WARNING, SKEW_FAILURE = 5, 60
"""Clock skew, in seconds, from which the clock check warns, and fails."""

_NO_CERTS = "not checked: there is no certs document"


@dataclass(slots=True)
class Doctor:
    """Checks of everything that verification depends on.

    Attributes:
        configuration: The settings that could be loaded.
        token: The token to verify, or None.
        clock: The source of time.
        fetch: The function that fetches the certs document; None means httpx.
        page: The public URL of a page that must not be cached, or None.
        result: The result of the fetch.
        keys: The entries of the certs document.
    """

    configuration: Configuration
    token: GivenToken | None
    clock: Clock
    fetch: Fetch | None
    page: str | None = None
    result: FetchResult = field(default_factory=FetchResult)
    keys: list[Key] = field(default_factory=list[Key])

    async def run_checks(self) -> AsyncGenerator[Step]:
        """Run all checks; yield each step when it is done."""
        yield self._check_settings()
        if settings := self.configuration.settings:
            yield check_audience(settings)
        if team := self.configuration.team:
            proxy = check_proxy(team)
            yield proxy
            yield check_ca(team)
            host = await check_host(team)
            yield host
            if "failed" not in (proxy.status, host.status):
                self.result = await fetch_certs(team, clock=self.clock, fetch=self.fetch)
            yield self._check_answer(team)
            yield self._check_certs(team)
            yield check_clock(self.result, team)
        if self.token is not None:
            checked = await self._check_token(self.token)
            yield checked
            if checked.status == "ok":
                yield UNCHECKED
        elif self.configuration.team:
            yield _step("token", "skipped", "none given; this says nothing about a refused request")
        if self.page is not None:
            yield await check_edge_cache(
                self.page, self.token.value if self.token else None, clock=self.clock, fetch=self.fetch
            )

    def _check_settings(self) -> Step:
        if (settings := self.configuration.settings) is None:
            return _step("settings", "failed", str(self.configuration.problem))
        local = "; a local team, for development only" if settings.is_local else ""
        return _step("settings", "ok", f"the team is {settings.issuer}{local}")

    def _check_answer(self, team: Settings) -> Step:
        if self.result.problem is None and self.result.document is None:
            return _step("answer", "skipped", "not checked: see the failed steps above")
        if self.result.document is None:
            return _step("answer", "failed", *explain_failure(self.result, team))
        return _step("answer", "ok", f"{team.certs_url} answered in {self.result.seconds * 1000:.0f} ms")

    def _check_certs(self, team: Settings) -> Step:
        document = self.result.document
        if document is None:
            return _step("certs", "skipped", _NO_CERTS)
        if self.result.is_web_page:
            return _step("certs", "failed", *explain_failure(self.result, team))
        self.keys = describe_keys(document, now=self.clock.now())
        try:
            keys = parse_jwks(document)
        except JwksProblem as problem:
            return _step("certs", "failed", str(problem), "check for a proxy that answers instead of the team")
        usable = plural(len(keys.keys), "usable key")
        if keys.skipped:
            return _step("certs", "warning", f"{usable}, {len(keys.skipped)} not used")
        return _step("certs", "ok", usable)

    async def _check_token(self, token: GivenToken) -> Step:
        if self.result.document is None or not any(key.usable for key in self.keys):
            return self._check_unverified(token)
        certs = Certs(self.result.document, "the team")
        verdict = (await verify_given(token, certs, self.configuration, self.clock)).verdict
        status: Status = "warning" if verdict.accepted is None else "ok" if verdict.accepted else "failed"
        hint = verdict.hint and verdict.hint.replace("see `cf-access doctor`", "see the check of the clock above")
        return _step("token", status, verdict.text, hint, verdict.reason)

    def _check_unverified(self, token: GivenToken) -> Step:
        """Check the claims of a token whose signature cannot be checked, as the app does before it asks for keys."""
        verdict = inspect_given(token, self.configuration, self.clock.now()).verdict
        if verdict.accepted is None:
            return _step("token", "skipped", _NO_CERTS)
        return _step("token", "failed", f"{verdict.text}; the signature was not checked", verdict.hint, verdict.reason)


def check_audience(settings: Settings) -> Step:
    """Check that each audience looks like an AUD tag: 64 lower-case hexadecimal digits."""
    wrong = [(tag, problem) for tag in settings.audience if (problem := audience_problem(tag))]
    if not wrong:
        return _step("audience", "ok", ", ".join(short(tag) for tag in settings.audience))
    text = f"{printable(short(wrong[0][0]))} is not an AUD tag: {wrong[0][1]}"
    return _step("audience", "warning" if settings.is_local else "failed", text, WHERE_IS_AUD)


def check_proxy(settings: Settings) -> Step:
    """Check the proxy in use; the step names it without its password."""
    if settings.is_local:
        return _step("proxy", "ok", "none: a local team needs no proxy")
    try:
        if proxy := proxy_for(settings.certs_url):
            httpx_proxy(proxy)
    except EnvironmentProblem as wrong:
        return _step("proxy", "failed", wrong.problem, wrong.hint)
    if proxy:
        return _step("proxy", "ok", f"through {printable(proxy.shown, limit=100)} ({proxy.source})")
    entry = excluding_entry(settings.certs_url)
    return _step(
        "proxy", "ok", f"none: the entry {printable(entry)} of NO_PROXY excludes the team" if entry else "none"
    )


def check_ca(settings: Settings) -> Step:
    """Check the CA certificates in use."""
    if settings.is_local:
        return _step("ca", "ok", "none: a local team needs no TLS")
    try:
        load_tls(encrypted=True, trust_env=True)
        given = ca_certificates()
    except EnvironmentProblem as wrong:
        return _step("ca", "failed", wrong.problem, wrong.hint)
    return _step(
        "ca", "ok", f"{printable(given.path)} ({given.source})" if given.source else "the certificates of certifi"
    )


async def check_host(settings: Settings) -> Step:
    """Check that the host name of the team resolves."""
    parts = urlsplit(settings.issuer)
    host = parts.hostname or ""
    try:
        if not settings.is_local and proxy_for(settings.certs_url):
            return _step("host", "skipped", f"the proxy resolves {host}")
    except EnvironmentProblem:
        return _step("host", "skipped", "not checked: the proxy cannot be used")
    try:
        async with asyncio.timeout(settings.key_settings.fetch_timeout):
            found = await asyncio.get_running_loop().getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return _step("host", "failed", f"{host} was not found", "check the team's name, and this machine's DNS")
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    shown = ", ".join([*addresses[:3], "…"] if len(addresses) > 3 else addresses)  # noqa: PLR2004
    return _step("host", "ok", host if addresses == [host] else f"{host} resolves to {shown}")


def check_clock(result: FetchResult, settings: Settings) -> Step:
    """Compare this machine's clock with the server's `Date`, which has whole seconds."""
    server_time = _server_time(result)
    if server_time is None:
        return _step("clock", "skipped", "not checked: there is no response with a Date header")
    skew = result.received_at - server_time
    if abs(skew) < SKEW_WARNING:
        return _step("clock", "ok", "same time as the server")
    direction = "ahead of" if skew > 0 else "behind"
    text = f"{duration(skew)} {direction} the server"
    hint = "synchronize the clock with NTP"
    if -settings.nbf_leeway <= skew <= SKEW_FAILURE:
        return _step("clock", "warning", text, hint)
    effect = "tokens expire too early" if skew > 0 else "new tokens are rejected as token_not_yet_valid"
    return _step("clock", "failed", f"{text}: {effect}", hint)


def _server_time(result: FetchResult) -> float | None:
    """Return the server's time, in seconds since 1970: `Date` plus the `Age` in a cache (RFC 9111 section 5.1)."""
    age = result.headers.get("age", "0")
    try:
        sent = parsedate_to_datetime(result.headers.get("date", "")[:64]).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return sent + (int(age) if re.fullmatch(r"[0-9]{1,9}", age) else 0)


def show_step(step: Step, keys: list[Key], screen: Screen) -> None:
    """Print a step; below the certs step, print each key."""
    screen.step(step)
    for key in keys if step.name == "certs" else []:
        use = "usable" if key.usable else f"not used: {key.problem}"
        size = f"RSA {key.bits}, " if key.bits else ""
        age = f", {duration(key.certificate.age)} old" if key.certificate else ""
        screen.field(key.role or "key", f"{size}{use}{age}, kid {key.kid or 'none'}")


def _step(name: str, status: Status, text: str, hint: str | None = None, reason: str | None = None) -> Step:
    return Step(name=name, status=status, text=text, hint=hint, reason=reason)
