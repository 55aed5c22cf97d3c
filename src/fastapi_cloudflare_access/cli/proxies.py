"""The proxy that the environment sets for the team, and whether httpx can use it."""

from collections.abc import Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from fastapi_cloudflare_access.cli.formatting import printable
from fastapi_cloudflare_access.settings import Settings

SCHEMES = ("http", "https", "socks5", "socks5h")
"""URL schemes of the proxies that httpx supports."""


def proxy_for(settings: Settings) -> str | None:
    """Return the URL of the proxy in use without its credentials, or None."""
    proxies, host = _proxies(settings), urlsplit(settings.issuer).hostname or ""
    given = proxies.get("https") or proxies.get("all")
    if not given or proxy_bypass(host):
        return None
    scheme, _, rest = given.rpartition("://")
    return f"{scheme}://{printable(rest.rpartition('@')[2], limit=100)}"


def proxy_problem(settings: Settings) -> tuple[str, str] | None:
    """Return the problem of a proxy and a hint, or None; httpx fails even if the team does not use that proxy."""
    for name, proxy in _proxies(settings).items():
        variable = f"{name.upper()}_PROXY"
        if why := _url_problem(proxy):
            return f"{variable} {why}", f"set {variable} to http://HOST:PORT, or unset it"
        if proxy.startswith("socks") and find_spec("socksio") is None:
            return (
                f"{variable} is a SOCKS proxy, which httpx cannot use without an extra",
                "install the extra: pip install 'httpx[socks]'",
            )
    return None


def _proxies(settings: Settings) -> Mapping[str, str]:
    """Return the proxy URLs that httpx reads for any host, by scheme."""
    given = getproxies()
    if settings.is_local or "*" in (host.strip() for host in given.get("no", "").split(",")):
        return {}
    found = {name: given[name] for name in ("https", "all", "http") if given.get(name)}
    return {name: proxy if "://" in proxy else f"http://{proxy}" for name, proxy in found.items()}


def _url_problem(proxy: str) -> str | None:
    try:
        parts = urlsplit(proxy)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a valid URL"
    if parts.scheme not in SCHEMES:
        return f"has the scheme {printable(parts.scheme, limit=20)}, not one of {', '.join(SCHEMES)}"
    return None if host else "has no host"
