"""What browsers and others send about the origin of a request, and whether `SameOrigin` lets it reach the app."""

from typing import NamedTuple

OWN, TRUSTED = "https://app.example.com", "https://ui.example.com:8443"
ORIGINS = [OWN, TRUSTED]
Headers = dict[str, str | list[str]]
HOSTS = ["app.example.com", "127.0.0.1:8000", "evil.example", ""]
"""What the tunnel leaves of Host: the public one, the one of the upstream, anything."""


class Row(NamedTuple):
    """A request, and whether it reaches the app."""

    headers: Headers
    passes: bool
    handshake: bool | None = None
    """Whether a handshake with these headers reaches the app, if that differs."""


def origin(value: str, site: str | None = None) -> Headers:
    return {"origin": value} if site is None else {"origin": value, "sec-fetch-site": site}


TABLE = {
    "own origin": Row(origin(OWN), passes=True),
    "own origin, blanks around it": Row(origin(f" {OWN}\t"), passes=True),
    "own origin, same-origin": Row(origin(OWN, "same-origin"), passes=True),
    "trusted origin": Row(origin(TRUSTED), passes=True),
    "trusted origin, same-site": Row(origin(TRUSTED, "same-site"), passes=True),
    "trusted origin, cross-site": Row(origin(TRUSTED, "cross-site"), passes=True),
    "same-origin without Origin": Row({"sec-fetch-site": "same-origin"}, passes=True),
    "none, as of an address that was typed": Row({"sec-fetch-site": "none"}, passes=True),
    "null with same-origin, as of no-referrer": Row(origin("null", "same-origin"), passes=True, handshake=False),
    "an origin that is not configured, same-origin": Row(
        origin("https://app.internal", "same-origin"), passes=True, handshake=False
    ),
    "no browser": Row({}, passes=True),
    "no browser, with a Referer": Row({"referer": "https://evil.example/"}, passes=True),
    "other origin": Row(origin("https://evil.example"), passes=False),
    "other origin, cross-site": Row(origin("https://evil.example", "cross-site"), passes=False),
    "neighbour, same-site": Row(origin("https://other.example.com", "same-site"), passes=False),
    "neighbour": Row(origin("https://other.example.com"), passes=False),
    "parent": Row(origin("https://example.com"), passes=False),
    "subdomain": Row(origin("https://x.app.example.com"), passes=False),
    "prefix": Row(origin("https://app.example.com.evil.example"), passes=False),
    "suffix": Row(origin("https://evilapp.example.com"), passes=False),
    "user information": Row(origin("https://app.example.com@evil.example"), passes=False),
    "cross-site without Origin": Row({"sec-fetch-site": "cross-site"}, passes=False),
    "same-site without Origin": Row({"sec-fetch-site": "same-site"}, passes=False),
    "null": Row(origin("null"), passes=False),
    "null, cross-site": Row(origin("null", "cross-site"), passes=False),
    "null, in upper case": Row(origin("NULL"), passes=False),
    "empty Origin": Row(origin(""), passes=False),
    "blank Origin": Row(origin(" "), passes=False),
    "other scheme": Row(origin("http://app.example.com"), passes=False),
    "other port": Row(origin("https://app.example.com:8443"), passes=False),
    "default port, which browsers leave out": Row(origin("https://app.example.com:443"), passes=False),
    "trusted host without its port": Row(origin("https://ui.example.com"), passes=False),
    "upper case": Row(origin("HTTPS://APP.EXAMPLE.COM"), passes=False),
    "trailing dot": Row(origin("https://app.example.com."), passes=False),
    "trailing slash": Row(origin("https://app.example.com/"), passes=False),
    "with a path": Row(origin("https://app.example.com/x"), passes=False),
    "IDN in Unicode": Row(origin("https://\u00e4pp.example.com"), passes=False),
    "IDN look-alike in ASCII": Row(origin("https://xn--pp-yka.example.com"), passes=False),
    "fullwidth dot": Row(origin("https://app\u3002example.com"), passes=False),
    "IPv6": Row(origin("https://[::1]"), passes=False),
    "extension": Row(origin("chrome-extension://abcdefghijklmnop"), passes=False),
    "file": Row(origin("file://"), passes=False),
    "a list in one header": Row(origin(f"{OWN}, {OWN}"), passes=False),
    "two in one header (RFC 6454 section 7.1)": Row(origin(f"{OWN} https://evil.example"), passes=False),
    "two headers": Row({"origin": [OWN, "https://evil.example"]}, passes=False),
    "two headers, the own one last": Row({"origin": ["https://evil.example", OWN]}, passes=False),
    "two equal headers": Row({"origin": [OWN, OWN]}, passes=False),
    "two headers, same-origin": Row({"origin": [OWN, OWN], "sec-fetch-site": "same-origin"}, passes=False),
    "two sites": Row({"sec-fetch-site": ["same-origin", "cross-site"]}, passes=False),
    "two equal sites": Row({"sec-fetch-site": ["same-origin", "same-origin"]}, passes=True),
    "a list of sites": Row({"sec-fetch-site": "same-origin, cross-site"}, passes=False),
    "a site in upper case": Row({"sec-fetch-site": "Same-Origin"}, passes=False),
    "an empty site": Row({"sec-fetch-site": ""}, passes=False),
    "an unknown site": Row({"sec-fetch-site": "same-party"}, passes=False),
    "an unknown site, own origin": Row(origin(OWN, "same-party"), passes=True),
    "16 KiB": Row(origin("https://" + "a" * 16_384), passes=False),
    "controls": Row(origin("https://app.example.com\x00"), passes=False),
}
