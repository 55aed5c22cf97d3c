"""What this package promises about its speed, and whether a run shows it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Results = Mapping[str, Any]
OURS = ("this package", "this package, token cache", "this package, router", "this package, policy")
TREES = ("tree of access", "tree of access.user")


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
    yield from _dependencies(results["requests"]["asgi"], "one empty dependency", "one empty FastAPI dependency")
    yield from _requests(results["requests"])
    yield from _trouble(results["trouble"])
    yield from _scale(results["scale"])
    lookup = results["verification"]["steps"]["key lookup"]["microseconds"]
    yield Aim("a lookup of a known kid, µs", 1, lookup)
    added = results["footprint"]["import"]["wall"]
    yield Aim("importing adds to FastAPI, ms", 150, added)
    if "edge" in results:
        yield from _edge(results["edge"])


def _edge(found: Results) -> Iterator[Aim]:
    added = {name: one["added"] for name, one in found.items() if name != "the app alone"}
    mine = added.pop("local Access")
    for peer, one in added.items():
        yield Aim(f"what the local Access adds to a request: times {peer}", 1.0, mine / one)


def explanations(results: Results) -> Iterator[Aim]:
    """What explains the dependencies: the same bound by other denominators."""
    asgi = results["requests"]["asgi"]
    yield from _dependencies(asgi, "empty tree", "an empty tree of three")
    for name in TREES:
        about = f"a whole request with the {name}: times one with one empty dependency"
        yield Aim(about, 1.8, round(asgi[name]["microseconds"] / asgi["one empty dependency"]["microseconds"], 3))


def _verification(found: Results) -> Iterator[Aim]:
    for token in ("user, 0.9 kB", "service, 0.8 kB"):
        one = found["tokens"][token]
        yield Aim(f"verification, cold, {token}: times one RSA", 1.8, one["this package"]["ratio"])
        yield Aim(f"the same with the token cache, {token}", 0.1, one["this package, token cache"]["ratio"])
    for token, one in found["tokens"].items():
        peers = {name: figure["ratio"] for name, figure in one.items() if not name.startswith(("bare", "this"))}
        best = min(peers, key=lambda name: peers[name])
        yield Aim(f"{token}: against the fastest peer, {best}", 1.0, one["this package"]["ratio"] / peers[best])


def _dependencies(asgi: Results, base: str, called: str) -> Iterator[Aim]:
    plain = asgi["unprotected"]["microseconds"]
    for name in TREES:
        added = (asgi[name]["microseconds"] - plain) / (asgi[base]["microseconds"] - plain)
        yield Aim(f"what the {name} adds without verification: times {called}", 1.8, round(added, 3))


def _requests(found: Results) -> Iterator[Aim]:
    for http in ("h11", "httptools"):
        for name in OURS:
            yield Aim(f"{name}, {http}: rate against its reference", 0.9, found[http][name]["ratio"], at_least=True)


def _trouble(found: Results) -> Iterator[Aim]:
    hang = found["this package"]["times quiet"]["hang"]
    yield Aim("p99 of known callers while the endpoint hangs: times quiet", 1.2, hang or float("inf"))
    after = found["this package"]["new key accepted after"]
    yield Aim("a token of a new key passes after, s", 0.2, after or float("inf"))


def _scale(found: Results) -> Iterator[Aim]:
    for name in ("keys", "audiences", "policies"):
        last = list(found[name].values())[-1]
        yield Aim(f"growing {name}: times the smallest", 1.1, last["ratio"])
