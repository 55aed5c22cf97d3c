"""The token of a command: its sources and its description."""

import os
import re
import sys
from dataclasses import dataclass

from fastapi_cloudflare_access._verification.request_token import find_token, short_digest
from fastapi_cloudflare_access.cli.reports import CommandError, TokenFacts
from fastapi_cloudflare_access.errors import CredentialError, MissingToken
from fastapi_cloudflare_access.settings import Settings

VARIABLE = "CF_ACCESS_TOKEN"
"""Environment variable for a token."""
MAX_INPUT = 128 * 1024
"""Maximum size of standard input in bytes."""

_HEADER_LINE = re.compile(rb"[<>*\s]*(cf-access-jwt-assertion|cookie)\s*:\s*(.*?)\s*", re.IGNORECASE)
_COOKIE = b"CF_Authorization="


@dataclass(frozen=True, slots=True)
class GivenToken:
    """A token, and the headers of the request that contains it.

    Attributes:
        value: The token.
        headers: The header or the cookies; empty for a bare token.
    """

    value: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def for_app(self, settings: Settings | None) -> bytes:
        """Return the token that an app with these settings reads from the request.

        Raises:
            CredentialError: It reads none, or there is more than one.
        """
        if settings is None or not self.headers:
            return self.value
        if (token := find_token(self.headers, settings.token_sources)) is not None:
            return token
        has, reads = ("cookie", "header") if "header" in settings.token_sources else ("header", "cookie")
        raise MissingToken(f"the request has only the {has}, and this configuration reads only the {reads}")


def read_token(argument: str | None) -> GivenToken:
    """Read the token from the argument, from standard input for `-`, or else from `CF_ACCESS_TOKEN`.

    The text is the bare token, or a request with a header or cookie that contains it.

    Raises:
        CommandError: There is no token.
    """
    if (token := optional_token(argument)) is None:
        raise CommandError(f"There is no token: pass it as the argument, pipe it to -, or set {VARIABLE}.")
    return token


def optional_token(argument: str | None) -> GivenToken | None:
    """Read the token as `read_token` does; return None if no source is set.

    Raises:
        CommandError: The source contains no token.
    """
    if argument == "-":
        return _extract_token(_standard_input(), "standard input")
    if argument is not None:
        return _extract_token(os.fsencode(argument), "the argument")
    if (given := os.environ.get(VARIABLE)) is not None:
        return _extract_token(os.fsencode(given), VARIABLE)
    return None


def describe_token(token: bytes) -> TokenFacts:
    """Describe a token without revealing it."""
    return TokenFacts(digest=short_digest(token), length=len(token))


def _standard_input() -> bytes:
    hint = f"pass the token as the argument, or set {VARIABLE}"
    if sys.stdin is None:
        raise CommandError(f"Standard input is closed: {hint}.")
    try:
        read = sys.stdin.buffer.read(MAX_INPUT + 1)
    except OSError as problem:
        raise CommandError(f"Standard input cannot be read ({problem.strerror or problem}): {hint}.") from None
    if len(read) > MAX_INPUT:
        raise CommandError(f"Standard input is longer than {MAX_INPUT} bytes: pipe one token only.")
    return read


def _extract_token(text: bytes, source: str) -> GivenToken:
    text = text.strip()
    if not text:
        raise CommandError(f"There is no token: {source} is empty.")
    headers = [(found[1].lower(), found[2]) for line in text.splitlines() if (found := _HEADER_LINE.fullmatch(line))]
    if not headers and text.startswith(_COOKIE):
        headers = [(b"cookie", text)]
    if not headers:
        return GivenToken(text)
    try:
        token = find_token(headers, ("header", "cookie"))
    except CredentialError as error:
        raise CommandError(f"There is no unique token in {source}: {error}.") from None
    if token is None:
        raise CommandError(f"There is no token: the cookies in {source} contain no CF_Authorization.")
    return GivenToken(token, tuple(headers))
