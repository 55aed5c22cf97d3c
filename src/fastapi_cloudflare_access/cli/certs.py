"""Certs documents: asked for, read from a file, or made of a PEM certificate."""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from fastapi_cloudflare_access._clock import within
from fastapi_cloudflare_access._keys.http import default_fetch, describe, read_document
from fastapi_cloudflare_access._verification.strict import EncodingProblem, parse_json_object
from fastapi_cloudflare_access.cli.formatting import as_dict, as_list, printable
from fastapi_cloudflare_access.cli.proxies import proxy_problem
from fastapi_cloudflare_access.cli.reports import CommandError, ExitCode
from fastapi_cloudflare_access.protocols import Clock, Fetch, FetchResponse
from fastapi_cloudflare_access.settings import Settings

MAX_FILE = 1_048_576
"""How many bytes of a file are read."""
MAX_CERTIFICATES = 256
NOT_FOUND = 404
SAVE_HINT = "save what <team domain>/cdn-cgi/access/certs shows, as it is"
LOCAL_HINT = "see whether the local Access runs there, and start it with `cf-access dev`"

_BEGIN = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----")


@dataclass(slots=True)
class Answer:
    """What came when the team was asked for its certs.

    Attributes:
        document: The document; None where none came.
        problem: Why none came.
        status: The HTTP status; None where there was no answer.
        headers: Of the answer, names in lower case.
        seconds: How long it took.
        at: When it came, in seconds since 1970.
    """

    document: bytes | None = None
    problem: str | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0.0
    at: float = 0.0

    @property
    def is_web_page(self) -> bool:
        """Whether a web page came in place of the document."""
        return self.document is not None and looks_like_html(self.document)


def looks_like_html(document: bytes) -> bool:
    """Tell a web page by its first character; no JSON begins with it."""
    return document.lstrip()[:1] == b"<"


async def ask(settings: Settings, *, clock: Clock, fetch: Fetch | None) -> Answer:
    """Ask the team for its certs, once, as the app does; what goes wrong is in the answer."""
    answer = Answer()
    recorded = _recording(fetch or default_fetch(settings), answer, clock)
    started = clock.monotonic()
    try:
        work = read_document(recorded, settings.certs_url, etag=None, no_cache=True)
        answer.document = (await within(clock, settings.key_settings.fetch_timeout, work)).body
    except Exception as problem:  # noqa: BLE001 - a fetch may raise anything
        answer.problem = describe(problem)
    answer.seconds = clock.monotonic() - started
    return answer


def _recording(fetch: Fetch, answer: Answer, clock: Clock) -> Fetch:
    """Note status, headers and time of what the fetch brings."""

    @asynccontextmanager
    async def recorded(url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:
        async with fetch(url, headers=headers) as response:
            answer.status, answer.headers, answer.at = response.status, response.headers, clock.now()
            yield response

    return recorded


def diagnosis(answer: Answer, settings: Settings) -> tuple[str, str]:
    """Say what is wrong with an answer, and what to do."""
    if answer.status == NOT_FOUND:
        hint = LOCAL_HINT if settings.is_local else "check the team's name; compare it with Settings in Zero Trust"
        return f"there is no such team: {settings.issuer} answers 404", hint
    if answer.is_web_page:
        return (
            "a web page came in place of the certs document",
            "let its address through the proxy or the login page in between",
        )
    if answer.status is None and (unusable := proxy_problem(settings)):
        return unusable
    problem = str(answer.problem)
    if "ProxyError" in problem:
        return (
            "the proxy did not let the connection through",
            "see whether it wants a login, or does not allow this host",
        )
    return f"{settings.issuer} gave no certs: {problem}", _what_to_do(problem, answer.status, settings)


def _what_to_do(problem: str, status: int | None, settings: Settings) -> str:
    if settings.is_local:
        return LOCAL_HINT
    if "TLS" in problem or "CA certificates" in problem:
        return "where a proxy opens TLS, name its CA in SSL_CERT_FILE"
    if "host name" in problem:
        return "check the team's name, and this machine's DNS"
    if status is None:
        return "check the network, the firewall, and HTTPS_PROXY"
    return "try again; if it stays, something on the way answers in the team's place"


async def ask_or_fail(settings: Settings, *, clock: Clock, fetch: Fetch | None) -> bytes:
    """Ask the team for its certs.

    Raises:
        CommandError: It cannot be had, or is none.
    """
    answer = await ask(settings, clock=clock, fetch=fetch)
    if answer.document is None or answer.is_web_page:
        raise CommandError(sentence(*diagnosis(answer, settings)), ExitCode.CANNOT_TELL)
    try:
        parse_json_object(answer.document)
    except EncodingProblem as problem:
        text = f"what {settings.issuer} gave is no certs document: {problem}"
        raise CommandError(sentence(text, _what_to_do("", 200, settings)), ExitCode.CANNOT_TELL) from None
    return answer.document


def sentence(text: str, hint: str) -> str:
    """Make one sentence of what is wrong and what to do."""
    return f"{text if text.startswith('http') else text[:1].upper() + text[1:]}; {hint}."


def read_certs(path: Path) -> bytes:
    """Read a saved certs document; where it has no `keys`, they are taken from the certificates.

    Raises:
        CommandError: It cannot be read, or is none.
    """
    content, name = _read(path), printable(str(path))
    if b"-----BEGIN" in content[:64]:
        raise CommandError(f"{name} is a PEM file: give it as --cert.")
    if looks_like_html(content):
        raise CommandError(f"{name} is a web page and no certs document: {SAVE_HINT}.")
    try:
        document = parse_json_object(content)
    except EncodingProblem as problem:
        raise CommandError(f"{name} is no certs document ({problem}): {SAVE_HINT}.") from None
    if isinstance(document.get("keys"), list):
        return content
    keys = [jwk for kid, certificate in certificates(document).items() if (jwk := _jwk(certificate, kid))]
    if not keys:
        raise CommandError(f"{name} is no certs document (it has no keys): {SAVE_HINT}.")
    return json.dumps({**document, "keys": keys}).encode()


def read_pem(path: Path, kid: str) -> bytes:
    """Read a PEM certificate, and make a certs document of it in which its key has that `kid`.

    Raises:
        CommandError: It cannot be read, or holds no certificate of an RSA key.
    """
    content, name = _read(path), printable(str(path))
    pem = content.strip(b'" \t\r\n').replace(b"\\n", b"\n")  # as it is copied out of JSON
    if pem.startswith(b"{"):
        raise CommandError(f"{name} is JSON and no certificate: give a certs document as --certs.")
    if (count := len(_BEGIN.findall(pem))) > 1:
        raise CommandError(
            f"{name} holds {count} certificates: keep the one whose kid is the token's, "
            "or give the whole certs document as --certs."
        )
    if (certificate := load_certificate(pem)) is None:
        raise CommandError(
            f"{name} holds no certificate: copy a `cert` of public_certs into it, from -----BEGIN CERTIFICATE----- on."
        )
    if (jwk := _jwk(certificate, kid)) is None:
        raise CommandError(f"The certificate in {name} is of no RSA key: copy a `cert` of public_certs into it.")
    text = pem.decode("ascii", "replace")
    return json.dumps({"keys": [jwk], "public_certs": [{"kid": kid, "cert": text}]}).encode()


def certificates(document: Mapping[str, Any]) -> dict[str, x509.Certificate]:
    """Give the certificates under `public_certs` by their `kid`; what is none is left out."""
    found: dict[str, x509.Certificate] = {}
    for entry in map(as_dict, as_list(document.get("public_certs"))[:MAX_CERTIFICATES]):
        kid, pem = entry.get("kid"), entry.get("cert")
        certificate = load_certificate(pem.encode()) if isinstance(pem, str) else None
        if isinstance(kid, str) and certificate is not None:
            found.setdefault(kid, certificate)
    return found


def load_certificate(pem: bytes) -> x509.Certificate | None:
    """Read a PEM certificate, or give None where it is none."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except Exception:  # noqa: BLE001 - whatever the library makes of it, it is none
        return None


def rsa_key(certificate: x509.Certificate) -> RSAPublicKey | None:
    """Give the RSA key of a certificate, or None where it has another."""
    try:
        key = certificate.public_key()
    except Exception:  # noqa: BLE001 - whatever the library makes of it, it is no RSA key
        return None
    return key if isinstance(key, RSAPublicKey) else None


def _jwk(certificate: x509.Certificate, kid: str) -> dict[str, str] | None:
    if (key := rsa_key(certificate)) is None:
        return None
    numbers = key.public_numbers()
    return {"kid": kid, "kty": "RSA", "alg": "RS256", "e": _base64url(numbers.e), "n": _base64url(numbers.n)}


def _base64url(number: int) -> str:
    return urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as problem:
        why = getattr(problem, "strerror", None) or "that is no file name"
        raise CommandError(f"{printable(str(path))} cannot be read: {why}.") from None
    if len(content) > MAX_FILE:
        raise CommandError(f"{printable(str(path))} is longer than {MAX_FILE} bytes: it is no certs document.")
    return content
