"""`cf-access doctor`: from the settings to the token, what works and what does not."""

import asyncio
import os
import re
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from fastapi_cloudflare_access._keys.jwks import JwksProblem, parse_jwks
from fastapi_cloudflare_access.cli.certs import Answer, ask, diagnosis
from fastapi_cloudflare_access.cli.configuration import Configuration
from fastapi_cloudflare_access.cli.formatting import duration, plural, printable, short
from fastapi_cloudflare_access.cli.key_description import describe_keys
from fastapi_cloudflare_access.cli.output import Screen
from fastapi_cloudflare_access.cli.proxies import proxy_of, proxy_problem
from fastapi_cloudflare_access.cli.reports import Key, Status, Step
from fastapi_cloudflare_access.cli.verify import Certs, verify_token
from fastapi_cloudflare_access.protocols import Clock, Fetch
from fastapi_cloudflare_access.settings import Settings

SLOW_CLOCK, WRONG_CLOCK = 5, 60
"""From how many seconds of skew on it is worth a word, and a failure."""

_AUD_TAG = re.compile(r"[0-9a-f]{64}")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NO_CERTS = "not looked at: there is no certs document"


@dataclass(slots=True)
class Doctor:
    """Looks at everything that verification depends on.

    Attributes:
        configuration: The settings, as far as they are there.
        token: To be explained, or None.
        clock: Where time comes from.
        fetch: How the certs are fetched; by default with httpx.
        answer: What the team answered.
        keys: The entries of the certs document.
    """

    configuration: Configuration
    token: bytes | None
    clock: Clock
    fetch: Fetch | None
    answer: Answer = field(default_factory=Answer)
    keys: list[Key] = field(default_factory=list[Key])

    async def examine(self) -> AsyncGenerator[Step]:
        """Give one step after the other, each as it is done."""
        yield self._settings()
        if settings := self.configuration.settings:
            yield audience_step(settings)
        if team := self.configuration.team:
            proxy = proxy_step(team)
            yield proxy
            yield ca_step(team)
            host = await host_step(team)
            yield host
            if "failed" not in (proxy.status, host.status):
                self.answer = await ask(team, clock=self.clock, fetch=self.fetch)
            yield self._answer(team)
            yield self._certs(team)
            yield clock_step(self.answer, team)
        if self.token is not None:
            yield await self._explain(self.token)

    def _settings(self) -> Step:
        if (settings := self.configuration.settings) is None:
            return _step("settings", "failed", str(self.configuration.problem))
        local = "; a local team, for development only" if settings.is_local else ""
        return _step("settings", "ok", f"the team is {settings.issuer}{local}")

    def _answer(self, team: Settings) -> Step:
        if self.answer.problem is None and self.answer.document is None:
            return _step("answer", "skipped", "not asked: there is no way to the host")
        if self.answer.document is None:
            return _step("answer", "failed", *diagnosis(self.answer, team))
        return _step("answer", "ok", f"{team.certs_url} answered in {self.answer.seconds * 1000:.0f} ms")

    def _certs(self, team: Settings) -> Step:
        document = self.answer.document
        if document is None:
            return _step("certs", "skipped", _NO_CERTS)
        if self.answer.is_web_page:
            return _step("certs", "failed", *diagnosis(self.answer, team))
        self.keys = describe_keys(document, now=self.clock.now())
        try:
            keys = parse_jwks(document)
        except JwksProblem as problem:
            return _step("certs", "failed", str(problem), "something else answers in the team's place")
        usable = plural(len(keys.keys), "usable key")
        if keys.skipped:
            return _step("certs", "warning", f"{usable}, {len(keys.skipped)} not used")
        return _step("certs", "ok", usable)

    async def _explain(self, token: bytes) -> Step:
        if self.answer.document is None or not any(key.usable for key in self.keys):
            return _step("token", "skipped", _NO_CERTS)
        certs = Certs(self.answer.document, "the team")
        verdict = (await verify_token(token, certs, self.configuration, self.clock)).verdict
        status: Status = "warning" if verdict.accepted is None else "ok" if verdict.accepted else "failed"
        return _step("token", status, verdict.text, verdict.hint, verdict.reason)


def audience_step(settings: Settings) -> Step:
    """Say whether the audiences look like AUD tags: 64 lower-case hexadecimal digits."""
    odd = [tag for tag in settings.audience if not _AUD_TAG.fullmatch(tag)]
    if not odd:
        return _step("audience", "ok", ", ".join(short(tag) for tag in settings.audience))
    text = f"{printable(short(odd[0]))} is no AUD tag: {_what_it_is(odd[0])}"
    hint = "copy the Application Audience (AUD) Tag of the application in Zero Trust"
    return _step("audience", "warning" if settings.is_local else "failed", text, hint)


def _what_it_is(tag: str) -> str:
    if _UUID.fullmatch(tag):
        return "it looks like the application's id"
    if _AUD_TAG.fullmatch(tag.lower()):
        return "it has upper-case letters"
    return f"it has {plural(len(tag), 'character')}, not 64 hexadecimal digits"


def proxy_step(settings: Settings) -> Step:
    """Say which proxy is in use, without its password, and whether it can be."""
    if settings.is_local:
        return _step("proxy", "ok", "none: a local team is asked directly")
    if unusable := proxy_problem(settings):
        return _step("proxy", "failed", *unusable)
    proxy = proxy_of(settings)
    return _step("proxy", "ok", f"through {proxy}" if proxy else "none")


def ca_step(settings: Settings) -> Step:
    """Say which CA certificates are in use."""
    if settings.is_local:
        return _step("ca", "ok", "none needed: a local team is asked without TLS")
    for name, is_there in (("SSL_CERT_FILE", Path.is_file), ("SSL_CERT_DIR", Path.is_dir)):
        if given := os.environ.get(name):
            shown = printable(given)
            if is_there(Path(given)):
                return _step("ca", "ok", f"{shown} ({name})")
            return _step("ca", "failed", f"{name} names {shown}, which is not there", f"correct or unset {name}")
    return _step("ca", "ok", "those of certifi")


async def host_step(settings: Settings) -> Step:
    """Say whether the name of the team resolves."""
    parts = urlsplit(settings.issuer)
    host = parts.hostname or ""
    if proxy_of(settings):
        return _step("host", "skipped", f"the proxy looks up {host}")
    try:
        async with asyncio.timeout(settings.key_settings.fetch_timeout):
            found = await asyncio.get_running_loop().getaddrinfo(host, parts.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return _step("host", "failed", f"{host} was not found", "check the team's name, and this machine's DNS")
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    shown = ", ".join([*addresses[:3], "…"] if len(addresses) > 3 else addresses)  # noqa: PLR2004
    return _step("host", "ok", host if addresses == [host] else f"{host} is {shown}")


def clock_step(answer: Answer, settings: Settings) -> Step:
    """Compare this machine's clock with the server's `Date`, which is given in whole seconds."""
    there = _date(answer)
    if there is None:
        return _step("clock", "skipped", "there is no Date to compare with")
    skew = answer.at - there
    if abs(skew) < SLOW_CLOCK:
        return _step("clock", "ok", "as the server's")
    direction = "ahead of" if skew > 0 else "behind"
    text = f"{duration(skew)} {direction} the server's"
    if -settings.nbf_leeway <= skew <= WRONG_CLOCK:
        return _step("clock", "warning", text, "have the clock set by NTP")
    harm = "tokens expire too early" if skew > 0 else "new tokens are refused as token_not_yet_valid"
    return _step("clock", "failed", f"{text}: {harm}", "have the clock set by NTP")


def _date(answer: Answer) -> float | None:
    """Read when the server answered; a cache on the way says in `Age` how long ago that was."""
    age = answer.headers.get("age", "0")
    try:
        sent = parsedate_to_datetime(answer.headers.get("date", "")[:64]).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return sent + (int(age) if re.fullmatch(r"[0-9]{1,9}", age) else 0)


def show_step(step: Step, keys: list[Key], screen: Screen) -> None:
    """Write a step for people; under the certs, each key."""
    screen.step(step)
    for key in keys if step.name == "certs" else []:
        use = "usable" if key.usable else f"not used: {key.problem}"
        size = f"RSA {key.bits}, " if key.bits else ""
        age = f", {duration(key.certificate.age)} old" if key.certificate else ""
        screen.field(key.role or "key", f"{size}{use}{age}, kid {key.kid or 'none'}")


def _step(name: str, status: Status, text: str, hint: str | None = None, reason: str | None = None) -> Step:
    return Step(name=name, status=status, text=text, hint=hint, reason=reason)
