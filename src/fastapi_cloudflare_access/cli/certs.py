"""Certs documents: fetched from the team, read from a file, or built from a PEM certificate."""

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

from fastapi_cloudflare_access._clock import run_with_timeout
from fastapi_cloudflare_access._keys.document import describe, read_document
from fastapi_cloudflare_access._keys.environment import EnvironmentProblem
from fastapi_cloudflare_access._keys.http import default_fetch
from fastapi_cloudflare_access._verification.strict import EncodingProblem, parse_json_object
from fastapi_cloudflare_access.cli.formatting import as_dict, as_list, printable
from fastapi_cloudflare_access.cli.reports import CommandError, ExitCode
from fastapi_cloudflare_access.protocols import Clock, Fetch, FetchResponse
from fastapi_cloudflare_access.settings import Settings

MAX_FILE = 1_048_576
"""Maximum size of a file in bytes."""
MAX_CERTIFICATES = 256
NOT_FOUND = 404
TEAM_HINT = (
    "check the team's name in the Settings of Zero Trust; if it was renamed, set CF_ACCESS_TEAM_DOMAIN to the new name "
    "and CF_ACCESS_FORMER_TEAM_DOMAINS to this one"
)
SAVE_HINT = "save the response of <team domain>/cdn-cgi/access/certs unchanged"
LOCAL_HINT = "check that the local Access runs there; `cf-access dev` starts it"

_BEGIN = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----")


@dataclass(slots=True)
class FetchResult:
    """Result of one fetch of the team's certs.

    Attributes:
        document: The certs document, or None if the fetch failed.
        problem: The reason of the failure.
        hint: What to do about a wrong proxy or wrong CA certificates; else None.
        status: The HTTP status, or None without a response.
        headers: The response headers, names in lower case.
        seconds: Duration of the fetch in seconds.
        received_at: Time of the response, in seconds since 1970.
    """

    document: bytes | None = None
    problem: str | None = None
    hint: str | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0.0
    received_at: float = 0.0

    @property
    def is_web_page(self) -> bool:
        """Whether the response is a web page instead of the document."""
        return self.document is not None and looks_like_html(self.document)


def looks_like_html(document: bytes) -> bool:
    """Check whether a document begins like HTML; JSON never does."""
    return document.lstrip()[:1] == b"<"


async def fetch_certs(settings: Settings, *, clock: Clock, fetch: Fetch | None) -> FetchResult:
    """Fetch the team's certs once, as the app does; the result records a failure."""
    result = FetchResult()
    recorded = _recording(fetch or default_fetch(settings), result, clock)
    started = clock.monotonic()
    try:
        work = read_document(recorded, settings.certs_url, etag=None, no_cache=True)
        result.document = (await run_with_timeout(clock, work, timeout=settings.key_settings.fetch_timeout)).body
    except EnvironmentProblem as wrong:
        result.problem, result.hint = wrong.problem, wrong.hint
    except Exception as problem:  # noqa: BLE001 - a fetch may raise anything
        result.problem = describe(problem)
    result.seconds = clock.monotonic() - started
    return result


def _recording(fetch: Fetch, result: FetchResult, clock: Clock) -> Fetch:
    """Return a fetch that records status, headers and time of the response."""

    @asynccontextmanager
    async def recorded(url: str, *, headers: Mapping[str, str]) -> AsyncGenerator[FetchResponse]:
        async with fetch(url, headers=headers) as response:
            result.status, result.headers, result.received_at = response.status, response.headers, clock.now()
            yield response

    return recorded


def explain_failure(result: FetchResult, settings: Settings) -> tuple[str, str]:
    """Return the problem of a failed fetch, and a hint."""
    if result.status == NOT_FOUND:
        hint = LOCAL_HINT if settings.is_local else TEAM_HINT
        return f"there is no such team: {settings.issuer} answers 404", hint
    if result.is_web_page:
        return (
            "the response is a web page, not the certs document",
            "allow the team domain in the proxy or the login page that answered",
        )
    problem = str(result.problem)
    if result.hint:
        return problem, result.hint
    if problem.startswith("the proxy of "):
        return problem, "check whether the proxy requires a login or blocks this host"
    return f"{settings.issuer} returned no certs: {problem}", _fetch_hint(problem, result.status, settings)


def _fetch_hint(problem: str, status: int | None, settings: Settings) -> str:
    if settings.is_local:
        return LOCAL_HINT
    if via := re.match(r"through the proxy of (\S+): (the host name)?", problem):
        return f"check {'the host in' if via[2] else 'the network, the firewall, and'} {via[1]}"
    if "TLS" in problem or "CA certificates" in problem:
        return "if a proxy decrypts TLS, set SSL_CERT_FILE to its CA certificate"
    if "host name" in problem:
        return "check the team's name, and this machine's DNS"
    if status is None:
        return "check the network, the firewall, and HTTPS_PROXY"
    return "try again; if the error persists, check for a proxy that answers instead of the team"


async def fetch_certs_or_fail(settings: Settings, *, clock: Clock, fetch: Fetch | None) -> bytes:
    """Fetch the team's certs.

    Raises:
        CommandError: The fetch failed, or the response is not a certs document.
    """
    result = await fetch_certs(settings, clock=clock, fetch=fetch)
    if result.document is None or result.is_web_page:
        raise CommandError(sentence(*explain_failure(result, settings)), ExitCode.INCONCLUSIVE)
    try:
        parse_json_object(result.document)
    except EncodingProblem as problem:
        text = f"the response of {settings.issuer} is not a certs document: {problem}"
        raise CommandError(sentence(text, _fetch_hint("", 200, settings)), ExitCode.INCONCLUSIVE) from None
    return result.document


def sentence(text: str, hint: str) -> str:
    """Join a problem and a hint into one sentence."""
    return f"{text if text.startswith('http') else text[:1].upper() + text[1:]}; {hint}."


def read_certs(path: Path) -> bytes:
    """Read a saved certs document; if it has no `keys`, build them from its certificates.

    Raises:
        CommandError: The file cannot be read, or is not a certs document.
    """
    content, name = _read(path), printable(str(path))
    if b"-----BEGIN" in content[:64]:
        raise CommandError(f"{name} is a PEM file: pass it as --cert.")
    if looks_like_html(content):
        raise CommandError(f"{name} is a web page, not a certs document: {SAVE_HINT}.")
    try:
        document = parse_json_object(content)
    except EncodingProblem as problem:
        raise CommandError(f"{name} is not a certs document ({problem}): {SAVE_HINT}.") from None
    if isinstance(document.get("keys"), list):
        return content
    keys = [jwk for kid, certificate in certificates(document).items() if (jwk := _jwk(certificate, kid))]
    if not keys:
        raise CommandError(f"{name} is not a certs document (it has no keys): {SAVE_HINT}.")
    return json.dumps({**document, "keys": keys}).encode()


def read_pem(path: Path, kid: str) -> bytes:
    """Read a PEM certificate as a certs document with one key under this `kid`.

    Raises:
        CommandError: The file cannot be read, or contains no certificate of an RSA key.
    """
    content, name = _read(path), printable(str(path))
    pem = content.strip(b'" \t\r\n').replace(b"\\n", b"\n")  # a value copied from JSON has quotes and \n
    if pem.startswith(b"{"):
        raise CommandError(f"{name} is JSON, not a certificate: pass a certs document as --certs.")
    if (count := len(_BEGIN.findall(pem))) > 1:
        raise CommandError(
            f"{name} contains {count} certificates: keep the one with the token's kid, "
            "or pass the certs document as --certs."
        )
    if (certificate := load_certificate(pem)) is None:
        raise CommandError(
            f"{name} contains no certificate: copy a `cert` of public_certs into it, with -----BEGIN CERTIFICATE-----."
        )
    if (jwk := _jwk(certificate, kid)) is None:
        raise CommandError(f"The certificate in {name} has no RSA key: copy a `cert` of public_certs into it.")
    text = pem.decode("ascii", "replace")
    return json.dumps({"keys": [jwk], "public_certs": [{"kid": kid, "cert": text}]}).encode()


def certificates(document: Mapping[str, Any]) -> dict[str, x509.Certificate]:
    """Return the certificates under `public_certs` by `kid`; entries that are not valid are skipped."""
    found: dict[str, x509.Certificate] = {}
    for entry in map(as_dict, as_list(document.get("public_certs"))[:MAX_CERTIFICATES]):
        kid, pem = entry.get("kid"), entry.get("cert")
        certificate = load_certificate(pem.encode()) if isinstance(pem, str) else None
        if isinstance(kid, str) and certificate is not None:
            found.setdefault(kid, certificate)
    return found


def load_certificate(pem: bytes) -> x509.Certificate | None:
    """Parse a PEM certificate; return None if it is not valid."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except Exception:  # noqa: BLE001 - the library raises many types for an invalid certificate
        return None


def rsa_key(certificate: x509.Certificate) -> RSAPublicKey | None:
    """Return the RSA key of a certificate, or None if its key is of another type."""
    try:
        key = certificate.public_key()
    except Exception:  # noqa: BLE001 - the library raises many types for an unsupported key
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
        why = getattr(problem, "strerror", None) or "not a valid file name"
        raise CommandError(f"{printable(str(path))} cannot be read: {why}.") from None
    if len(content) > MAX_FILE:
        raise CommandError(f"{printable(str(path))} is longer than {MAX_FILE} bytes: it is not a certs document.")
    return content
