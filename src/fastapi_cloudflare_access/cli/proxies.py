"""Which proxy the environment names for the team, and whether a fetch can go through it."""

from collections.abc import Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from fastapi_cloudflare_access.cli.formatting import printable
from fastapi_cloudflare_access.settings import Settings

SCHEMES = ("http", "https", "socks5", "socks5h")
"""What httpx can go through."""


def proxy_of(settings: Settings) -> str | None:
    """Give the proxy in use, without its password."""
    proxies, host = _proxies(settings), urlsplit(settings.issuer).hostname or ""
    given = proxies.get("https") or proxies.get("all")
    if not given or proxy_bypass(host):
        return None
    scheme, _, rest = given.rpartition("://")
    return f"{scheme}://{printable(rest.rpartition('@')[2], limit=100)}"


def proxy_problem(settings: Settings) -> tuple[str, str] | None:
    """Say what is wrong with a proxy, and what to do; one that is not used for the team stops the fetch as well."""
    for name, proxy in _proxies(settings).items():
        variable = f"{name.upper()}_PROXY"
        if why := _unusable(proxy):
            return f"{variable} {why}", f"set {variable} to http://HOST:PORT, or unset it"
        if proxy.startswith("socks") and find_spec("socksio") is None:
            return (
                f"{variable} names a SOCKS proxy, which httpx alone cannot use",
                "install its support: pip install 'httpx[socks]'",
            )
    return None


def _proxies(settings: Settings) -> Mapping[str, str]:
    """Give what httpx reads, whatever the host: a URL for each name."""
    given = getproxies()
    if settings.is_local or "*" in (host.strip() for host in given.get("no", "").split(",")):
        return {}
    found = {name: given[name] for name in ("https", "all", "http") if given.get(name)}
    return {name: proxy if "://" in proxy else f"http://{proxy}" for name, proxy in found.items()}


def _unusable(proxy: str) -> str | None:
    try:
        parts = urlsplit(proxy)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is no URL"
    if parts.scheme not in SCHEMES:
        return f"has the scheme {printable(parts.scheme, limit=20)}, not one of {', '.join(SCHEMES)}"
    return None if host else "names no host"
