"""What this package promises about its speed, and whether a run shows it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Results = Mapping[str, Any]
UNPROTECTED, EMPTY = "unprotected route", "one empty dependency"
KNOWN, NEW = "this package, returning callers", "this package, every token new"
BOTH, UNCACHED = "this package, router and route", "this package, token cache off"
GUARD, EXEMPT = "this package, AccessGuard", "this package, AccessGuard, exempt path"
PRIVATE = "this package, returning callers, PrivateResponses"
VERIFICATION_ALONE, BRIDGE = "verification alone", "MCP bridge"
REVOCATIONS = "100,000 revocations"
NO_SDK, SDK, PROMETHEUS = "OpenTelemetry without an SDK", "OpenTelemetry with an SDK", "Prometheus"
PARTS = ((BRIDGE, 3.0), (REVOCATIONS, 2.0), (NO_SDK, 1.0), (SDK, 3.0), (PROMETHEUS, 3.0))
"""What each part may add to a request with a known token, in microseconds where RSA takes `REFERENCE_RSA`."""
PEERS = ("PyJWT, PyJWKClient", "fastapi-cloudflare-access-jwt", "fastapi-azure-auth", "Cloudflare's tutorial")
"""How other apps verify the token of a request."""
BASE = "bare RSA-2048 verify"
VERIFIED, REMEMBERED = "this package, new token", "this package, known token"
"""One verification in a loop: without the token cache, and from it."""
PROTOCOLS = ("h11", "httptools")
TOKEN = "user, 0.9 kB"  # noqa: S105 - the name of one
"""The ordinary token, for what is measured with one only."""
REFERENCE_RSA = 26.0
"""Microseconds of one RSA verification on the machine that the bounds in microseconds are for."""
NEW_TOKEN = (2.6, 2.9)
"""What a request with a new token may add: so many empty dependencies, and so many RSA verifications."""


class Aim(NamedTuple):
    """One promise.

    Attributes:
        about: What is measured.
        bound: The promised bound.
        measured: The result.
        at_least: Whether the bound is a lower one.
        goal: What is aimed at beyond the bound.
        unit: What the figures are multiples of.
        limit: The bound in words, if the figures are shares of it.
        detail: The result in another unit.
    """

    about: str
    bound: float
    measured: float
    at_least: bool = False
    goal: float | None = None
    unit: str = ""
    limit: str = ""
    detail: str = ""

    @property
    def met(self) -> bool:
        """Whether the bound is kept."""
        return self._reaches(self.bound)

    @property
    def reached(self) -> bool:
        """Whether the goal is reached, if there is one."""
        return self.goal is None or self._reaches(self.goal)

    def _reaches(self, line: float) -> bool:
        return self.measured >= line if self.at_least else self.measured <= line


def aims(results: Results) -> Iterator[Aim]:
    """Yield every promise."""
    yield from first(results)
    yield from others(results)


def first(results: Results) -> Iterator[Aim]:
    """Yield the promises that the page begins with: what a user of the package notices."""
    requests = results["requests"]
    yield from _added(requests["asgi"])
    yield from _rates(requests["httptools"])
    loop = results["verification"]["tokens"]
    for token in (TOKEN, "service, 0.8 kB"):
        ratio = loop[token][VERIFIED]["ratio"]
        yield Aim(f"one new token verified in a loop: {token}", 1.8, ratio, unit=" RSA")
    yield Aim("time that the import adds to FastAPI's, ms", 150, results["footprint"]["import"]["wall"])


def others(results: Results) -> Iterator[Aim]:
    """Yield the other promises."""
    verification = results["verification"]
    yield from _verification(verification["tokens"])
    for http, one in results["inside"].items():
        yield _against_peers(f"{TOKEN}, inside requests, {http}", one)
    yield Aim("lookup of a known key, µs", 1, verification["steps"]["key lookup"]["microseconds"])
    yield from _trouble(results["trouble"])
    yield from _scale(results["scale"])
    yield from _edge(results["edge"])
    yield from _parts(results["parts"])


def _added(asgi: Results) -> Iterator[Aim]:
    empty = asgi[EMPTY]["added"]
    for name, bound, about in (
        (KNOWN, 2.4, "`access.user` on a route, known token: time added to a request"),
        (BOTH, 4.6, "`access` on the router and `access.user` on the route, known token: time added"),
    ):
        added = asgi[name]["added"]
        yield Aim(about, bound, added / empty, unit=" E", detail=f"{added:.0f} µs")
    yield Aim(
        "`access.user` on a route, every token new: time added to a request",
        1.0,
        share_of_bound(asgi[NEW]["added"], empty=empty, rsa=asgi[BASE]["microseconds"]),
        unit=" of the bound",
        limit=f"{NEW_TOKEN[0]} E + {NEW_TOKEN[1]} RSA",
        detail=f"{asgi[NEW]['added']:.0f} µs",
    )


def share_of_bound(added: float, *, empty: float, rsa: float) -> float:
    """Return the time that a new token adds to a request, as a share of what it may add."""
    dependencies, signatures = NEW_TOKEN
    return added / (dependencies * empty + signatures * rsa)


def _rates(found: Results) -> Iterator[Aim]:
    about = "requests per second on uvicorn, as a share of those with one empty dependency"
    for name, bound, goal in ((KNOWN, 0.80, 0.90), (NEW, 0.48, 0.55)):
        one = found[name]
        label = name.removeprefix("this package, ")
        detail = f"{one['rate']:,.0f}/s"
        yield Aim(f"{about}: {label}", bound, one["ratio"], at_least=True, goal=goal, detail=detail)


def _verification(tokens: Results) -> Iterator[Aim]:
    for token in (TOKEN, "service, 0.8 kB"):
        yield Aim(f"one known token verified in a loop: {token}", 0.1, tokens[token][REMEMBERED]["ratio"], unit=" RSA")
    for token, one in tokens.items():
        yield _against_peers(token, one)


def _against_peers(about: str, found: Results) -> Aim:
    peers = {name: figure["ratio"] for name, figure in found.items() if not name.startswith(("bare", "this"))}
    best = min(peers, key=lambda name: peers[name])
    ratio = found[VERIFIED]["ratio"] / peers[best]
    return Aim(f"one new token verified, against the fastest peer ({best}): {about}", 1.0, ratio)


def _trouble(found: Results) -> Iterator[Aim]:
    for name in (KNOWN, UNCACHED):
        hang = found[name]["times quiet"]["hang"]
        yield Aim(f"p99 while the certs endpoint hangs, against a quiet server: {name}", 1.2, hang or float("inf"))
    after = found[KNOWN]["new key accepted after"]
    yield Aim("a token of a new key is accepted after, s", 0.2, after or float("inf"))


def _scale(found: Results) -> Iterator[Aim]:
    for name in ("keys", "audiences", "policies"):
        last = list(found[name])[-1]
        yield Aim(f"time with {last}, against the fewest", 1.1, found[name][last]["ratio"])


def _edge(found: Results) -> Iterator[Aim]:
    added = {name: one["added"] for name, one in found.items() if isinstance(one, dict)}
    mine = added.pop("local Access")
    for peer in [name for name in added if not name.startswith(("the app", "local"))]:
        yield Aim(f"time that the local Access adds to a request, against {peer}", 1.0, mine / added[peer])
    for name, bound, about in (
        ("lines", 1.05, "time of a request with a line of the log, against one without"),
        ("first page", 2.0, "`cf-access dev`: first page after, s"),
        ("stop", 0.5, "`cf-access dev`: stop after Ctrl-C with an open stream, s"),
    ):
        if name in found:
            yield Aim(about, bound, found[name])


def _parts(found: Results) -> Iterator[Aim]:
    scale = REFERENCE_RSA / found[BASE]["microseconds"]
    for name, bound in PARTS:
        about = f"time that a part adds to a verified request, µs where RSA takes {REFERENCE_RSA:.0f}: {name}"
        yield Aim(about, bound, found[name]["added"] * scale)
