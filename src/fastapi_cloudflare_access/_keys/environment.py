"""The proxy and the CA certificates that the environment names for a fetch; the fetch and the doctor both ask here."""

import os
import re
import ssl
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from fastapi_cloudflare_access.errors import ConfigurationError

PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
"""Names of the variables that can name the proxy for an `https` URL; the first that is set decides."""
NO_PROXY_VARIABLES = ("no_proxy", "NO_PROXY")
PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")

_SYSTEM = "the system's proxy settings"
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
_UNPRINTABLE = re.compile(r"[^!-~]")


class EnvironmentProblem(ConfigurationError):
    """The environment names a proxy or CA certificates that cannot be used.

    Attributes:
        problem: What is wrong, with the name of the variable.
        hint: What to do.
    """

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(f"{problem}; {hint}")
        self.problem, self.hint = problem, hint


@dataclass(frozen=True, slots=True)
class Proxy:
    """The proxy for the team.

    Attributes:
        url: Its URL, with a password if there is one.
        source: The variable that names it.
    """

    url: str = field(repr=False)
    source: str

    @property
    def shown(self) -> str:
        """Its scheme, host and port, without user name and password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for an `https` URL, or None.

    The variables are read as Python reads them: an empty lower-case variable hides the upper-case one. If none of them
    is set, the proxy of macOS or Windows is used.

    Raises:
        EnvironmentProblem: The proxy cannot be used.
    """
    for names in (PROXY_VARIABLES[:2], PROXY_VARIABLES[2:]):
        name = next((name for name in names if name in os.environ), "")
        if value := os.environ.get(name, "").strip():
            return None if excluding_entry(url) else Proxy(_checked(value, name), name)
    system = getproxies().get("https", "").strip()
    if not system or excluding_entry(url) or proxy_bypass(urlsplit(url).hostname or ""):
        return None
    return Proxy(_checked(system, _SYSTEM), _SYSTEM)


def excluding_entry(url: str) -> str | None:
    """Return the entry of `NO_PROXY` that excludes this URL from the proxy, or None.

    An entry is a host, with its subdomains, and may have a port; `*` means every host. An entry with another scheme, a
    network or an address is allowed and never matches, since the host is a name.
    """
    target = urlsplit(url)
    name = next((name for name in NO_PROXY_VARIABLES if name in os.environ), "")
    host, port = target.hostname or "", str(target.port or 443)
    for entry in re.split(r"[,\s]+", os.environ.get(name, "")):
        scheme, _, rest = entry.lower().rpartition("://")
        wanted, _, wanted_port = rest.partition(":")
        wanted = wanted.removeprefix("*").strip(".")
        fits = wanted and scheme in ("", target.scheme) and wanted_port in ("", port)
        if entry == "*" or (fits and f".{host}".endswith(f".{wanted}")):
            return entry
    return None


def _checked(value: str, name: str) -> str:
    """Return the URL of a proxy; a value without a scheme is the host of an HTTP proxy."""
    url = value if "://" in value else f"http://{value}"
    hint = f"set {name} to http://HOST:PORT, or unset it" if name != _SYSTEM else "correct them"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise EnvironmentProblem(f"{name} is not a valid URL", hint) from None
    if _UNPRINTABLE.search(url) or not parts.scheme or set(host or "") & set("'\"[]<>{}|\\^`*,"):
        raise EnvironmentProblem(f"{name} is not a valid URL", hint)
    if not host:
        raise EnvironmentProblem(f"{name} has no host", hint)
    if parts.path not in ("", "/") or "?" in url or "#" in url:
        raise EnvironmentProblem(
            f"{name} has more than a host and a port", f"{hint}; write / ? # in a password as %2F %3F %23"
        )
    if parts.scheme not in PROXY_SCHEMES:
        raise EnvironmentProblem(f"{name} has a scheme that is not one of {', '.join(PROXY_SCHEMES)}", hint)
    if parts.scheme.startswith("socks") and find_spec("socksio") is None:
        raise EnvironmentProblem(
            f"{name} is a SOCKS proxy, which needs the package socksio", "install it: pip install socksio"
        )
    return url


@dataclass(frozen=True, slots=True)
class CaCertificates:
    """The CA certificates that TLS trusts.

    Attributes:
        source: The variable that names them; None for those of `certifi`.
        path: The file or the folder.
    """

    source: str | None = None
    path: str = ""


def ca_certificates() -> CaCertificates:
    """Return where the CA certificates are: in `SSL_CERT_FILE`, else in `SSL_CERT_DIR`, else those of `certifi`.

    Raises:
        EnvironmentProblem: The file or the folder cannot be used.
    """
    for name, check in (("SSL_CERT_FILE", _file_problem), ("SSL_CERT_DIR", _folder_problem)):
        if path := os.environ.get(name):
            if problem := check(path):
                raise EnvironmentProblem(f"{name} {problem}", f"correct or unset {name}")
            return CaCertificates(name, path)
    return CaCertificates()


def _file_problem(path: str) -> str | None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        return "names a file without usable certificates in PEM form"
    except (OSError, ValueError) as problem:
        return f"names a file that cannot be read ({getattr(problem, 'strerror', None) or 'not a valid path'})"
    return None


def _folder_problem(path: str) -> str | None:
    try:  # OpenSSL takes a list of folders
        names = [entry.name for folder in path.split(os.pathsep) if folder for entry in Path(folder).iterdir()]
    except (OSError, ValueError) as problem:
        return f"names a folder that cannot be read ({getattr(problem, 'strerror', None) or 'not a valid path'})"
    if not any(map(_HASHED.fullmatch, names)):
        return "names a folder without hashed certificates (openssl rehash FOLDER makes them)"
    return None
