"""Where the token of a command comes from, and what may be said about it."""

import os
import re
import sys

from fastapi_cloudflare_access._verification.request_token import digest, find_token
from fastapi_cloudflare_access.cli.reports import CommandError, TokenFacts
from fastapi_cloudflare_access.errors import CredentialError

VARIABLE = "CF_ACCESS_TOKEN"
"""The environment variable that holds a token."""
MAX_INPUT = 128 * 1024
"""How many bytes of standard input are read."""

_HEADER_LINE = re.compile(rb"[<>*\s]*(cf-access-jwt-assertion|cookie)\s*:\s*(.*?)\s*", re.IGNORECASE)
_COOKIE = b"CF_Authorization="


def read_token(argument: str | None) -> bytes:
    """Take the token from the argument, from standard input for `-`, or else from `CF_ACCESS_TOKEN`.

    A header line or a cookie will do as well as the bare token.

    Raises:
        CommandError: There is none.
    """
    if (token := optional_token(argument)) is None:
        raise CommandError(f"There is no token: give it as the argument, pipe it in with -, or set {VARIABLE}.")
    return token


def optional_token(argument: str | None) -> bytes | None:
    """Take the token from where `read_token` does, or give None where nobody gave one.

    Raises:
        CommandError: What was given holds none.
    """
    if argument == "-":
        return _token_in(_standard_input(), "standard input")
    if argument is not None:
        return _token_in(os.fsencode(argument), "the argument")
    if (given := os.environ.get(VARIABLE)) is not None:
        return _token_in(os.fsencode(given), VARIABLE)
    return None


def facts(token: bytes) -> TokenFacts:
    """Say which token it is without showing it."""
    return TokenFacts(digest=digest(token), length=len(token))


def _standard_input() -> bytes:
    otherwise = f"give the token as the argument, or set {VARIABLE}"
    if sys.stdin is None:
        raise CommandError(f"Standard input is closed: {otherwise}.")
    try:
        read = sys.stdin.buffer.read(MAX_INPUT + 1)
    except OSError as problem:
        raise CommandError(f"Standard input cannot be read ({problem.strerror or problem}): {otherwise}.") from None
    if len(read) > MAX_INPUT:
        raise CommandError(f"Standard input is longer than {MAX_INPUT} bytes: pipe in one token, and nothing else.")
    return read


def _token_in(text: bytes, place: str) -> bytes:
    text = text.strip()
    if not text:
        raise CommandError(f"There is no token: {place} is empty.")
    headers = [(found[1].lower(), found[2]) for line in text.splitlines() if (found := _HEADER_LINE.fullmatch(line))]
    if not headers and text.startswith(_COOKIE):
        headers = [(b"cookie", text)]
    if not headers:
        return text
    try:
        token = find_token(headers, ("header", "cookie"))
    except CredentialError as error:
        raise CommandError(f"There is no one token in {place}: {error}.") from None
    if token is None:
        raise CommandError(f"There is no token: the cookies in {place} hold no CF_Authorization.")
    return token
