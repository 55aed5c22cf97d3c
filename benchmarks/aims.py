"""What this package promises about its speed, and whether a run shows it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Results = Mapping[str, Any]
OURS = ("this package", "this package, token cache", "this package, router", "this package, policy")
BASE = "bare RSA-2048 verify"
COLD, CACHED = "empty tree, one RSA", "empty tree"
"""What a request is measured against."""
LEAST, LEAST_CACHED = "empty tree, unchecked claims", "empty tree, one SHA-256"
"""The least that a request could take."""
RATE = 0.9
"""Which share of the rate of its reference is promised."""
TREES = ("tree of access", "tree of access.user")
PROTOCOLS = ("h11", "httptools")
TOKEN = "user, 0.9 kB"  # noqa: S105 - the name of one
"""The ordinary one, where only one is measured."""


class Aim(NamedTuple):
    """One promise.

    Attributes:
        about: What is measured.
        most: The bound.
        measured: What came out.
        at_least: Whether the bound is one from below.
    """

    about: str
    most: float
    measured: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is kept."""
        return self.measured >= self.most if self.at_least else self.measured <= self.most


def aims(results: Results) -> Iterator[Aim]:
    """Every promise against these results, each by the denominator it was made with."""
    yield from _verification(results["verification"])
    yield from _inside(results["inside"])
    yield from _dependencies(results["requests"]["asgi"])
    yield from _requests(results["requests"])
    yield from _trouble(results["trouble"])
    yield from _scale(results["scale"])
    lookup = results["verification"]["steps"]["key lookup"]["microseconds"]
    yield Aim("a lookup of a known kid, µs", 1, lookup)
    added = results["footprint"]["import"]["wall"]
    yield Aim("importing adds to FastAPI, ms", 150, added)
    yield from _edge(results["edge"])


def _edge(found: Results) -> Iterator[Aim]:
    added = {name: one["added"] for name, one in found.items() if name != "the app alone"}
    mine = added.pop("local Access")
    for peer, one in added.items():
        yield Aim(f"what the local Access adds to a request: times {peer}", 1.0, mine / one)


def explanations(results: Results) -> Iterator[tuple[str, float]]:
    """What explains the bounds that are not kept: what others of the kind cost here, and how much is beyond."""
    asgi = results["requests"]["asgi"]
    for number, name in (("two", "access"), ("three", "access.user")):
        empty = f"{number} empty dependencies"
        yield f"{empty}: times one", _added(asgi, empty, "one empty dependency")
        yield f"the tree of {name}: times {empty}", _added(asgi, f"tree of {name}", empty)
    loop = results["verification"]["tokens"][TOKEN]
    for http in PROTOCOLS:
        yield from _inside_explained(http, results["inside"][http], loop)
        yield from _requests_explained(http, results["requests"][http])


def _inside_explained(http: str, found: Results, loop: Results) -> Iterator[tuple[str, float]]:
    yield f"one RSA inside requests, {http}: times one in a loop", _rsa(found) / _rsa(loop)
    beyond = _beyond_rsa(found)
    yield f"verification beyond RSA inside requests, {http}: times the same in a loop", beyond / _beyond_rsa(loop)
    yield f"verification beyond RSA inside requests, {http}, µs", beyond


def _requests_explained(http: str, found: Results) -> Iterator[tuple[str, float]]:
    empty, rsa = (1e6 / found[name]["rate"] for name in (CACHED, COLD))
    yield f"one RSA makes a request longer by, {http}, µs", rsa - empty
    yield f"the bound lets this package make it longer than that by, {http}, µs", rsa / RATE - rsa
    least, digest = (found[name]["ratio"] for name in (LEAST, LEAST_CACHED))
    yield f"an empty tree with unchecked claims, {http}: rate against the reference of this package", least
    yield f"an empty tree with one SHA-256 of the token, {http}: rate against an empty tree", digest


def _rsa(found: Results) -> float:
    microseconds: float = found[BASE]["microseconds"]
    return microseconds


def _beyond_rsa(found: Results) -> float:
    return float(found["this package"]["microseconds"]) - _rsa(found)


def _verification(found: Results) -> Iterator[Aim]:
    for token in (TOKEN, "service, 0.8 kB"):
        one = found["tokens"][token]
        yield Aim(f"verification in a loop, cold, {token}: times one RSA", 1.8, one["this package"]["ratio"])
        yield Aim(f"the same with the token cache, {token}", 0.1, one["this package, token cache"]["ratio"])
    for token, one in found["tokens"].items():
        yield _against_peers(token, one)


def _inside(found: Results) -> Iterator[Aim]:
    for http, one in found.items():
        yield _against_peers(f"{TOKEN}, inside requests, {http}", one)


def _against_peers(about: str, found: Results) -> Aim:
    peers = {name: figure["ratio"] for name, figure in found.items() if not name.startswith(("bare", "this"))}
    best = min(peers, key=lambda name: peers[name])
    return Aim(f"{about}: against the fastest peer, {best}", 1.0, found["this package"]["ratio"] / peers[best])


def _dependencies(asgi: Results) -> Iterator[Aim]:
    for name in TREES:
        added = _added(asgi, name, "one empty dependency")
        yield Aim(f"what the {name} adds without verification: times one empty FastAPI dependency", 1.8, added)


def _added(asgi: Results, name: str, base: str) -> float:
    added, by_base = (asgi[one]["microseconds"] - asgi["unprotected"]["microseconds"] for one in (name, base))
    return round(added / by_base, 3)


def _requests(found: Results) -> Iterator[Aim]:
    for http in PROTOCOLS:
        for name in OURS:
            yield Aim(f"{name}, {http}: rate against its reference", RATE, found[http][name]["ratio"], at_least=True)


def _trouble(found: Results) -> Iterator[Aim]:
    hang = found["this package"]["times quiet"]["hang"]
    yield Aim("p99 of known callers while the endpoint hangs: times quiet", 1.2, hang or float("inf"))
    after = found["this package"]["new key accepted after"]
    yield Aim("a token of a new key passes after, s", 0.2, after or float("inf"))


def _scale(found: Results) -> Iterator[Aim]:
    for name in ("keys", "audiences", "policies"):
        last = list(found[name].values())[-1]
        yield Aim(f"growing {name}: times the smallest", 1.1, last["ratio"])
