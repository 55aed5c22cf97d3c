"""The page of the documentation, written from the results."""

from collections.abc import Iterable, Mapping
from typing import Any

from aims import PROTOCOLS, Aim, aims, explanations

Results = Mapping[str, Any]

PAGE = """# Performance

What a verification costs beside the one operation that nobody can do without, what a request costs beside the ways
others do it, and where the time goes. `scripts/bench` measures all of this on your machine in under ten minutes, and
writes this page.

Compare within one run only. Operations take short turns in one process, in another order each round, and the figure is
the median of the ratios of each round (in brackets: the tenth to the ninetieth percentile); over sockets each app has
server processes of its own, and takes turns with the others. {machine}

## What is promised

{aims}

*Its reference* is an app with an empty tree of dependencies of the same shape in the same place, that does one bare RSA
verification; for the token cache, one that does nothing at all. A verification *in a loop* finds what it needs in the
caches of the processor. Inside requests it takes {cold} times one RSA, and {cached} with the token cache, where peers
are the only bound. A ratio belongs to its processor, too: on 2026-11-27, with Debian's Python 3.11, an Intel Xeon took
2.05 (user) and 1.85 (service) times one RSA in a loop, and an AMD EPYC 1.60 and 1.52.

Where bounds are not kept:

- **A tree of dependencies.** Each further node costs FastAPI nearly as much as the first, whatever the node does: two
  that do nothing use the bound up, or nearly. The tree of `access` has two nodes, the root that finds and verifies the
  token, and the object itself; that of `access.user` has three, with the kind of caller. Each is a node of its own so
  that an override reaches all who depend on it. They are the security schemes of OpenAPI themselves, so that the
  schemes cost no further ones.
- **A request whose token is verified anew.** In a server other code runs between two tokens and takes the place of
  theirs in the caches, so that RSA takes longer than in a loop, and Python longer still. What a verification displaces
  costs the code after it as well: one RSA makes a request longer than it takes itself. The table sets what the bound
  leaves beside what verification beyond RSA takes inside a request, before the tree is counted. *Unchecked claims* are
  what remains without a look at the request and without one check but the signature, made by quick means: RSA, and
  base64, JSON and the model by the core of Pydantic.
- **A request whose token is known.** The token cache knows a token by its SHA-256, which alone takes a part of what is
  lost against an empty tree. The rest goes to finding the token among the headers, to the nodes of the tree, and to
  looking up the token and its key.

{explanations}

## One verification

From the bytes of a token to typed claims, with the key known. Peers give a plain dict.

![Verification compared](../assets/performance-verification.svg)

{tokens}

The unit is one RSA-2048 verification by `cryptography`, everything prepared.

### Where the time goes

![Where the time goes](../assets/performance-where.svg)

Besides RSA: base64url, JSON that refuses a member that stands twice, the claims, and the typed and frozen model. Each
part was measured alone. What is left over (*the rest*) is the way from one to the next, and what they cost each other:
each is slower after RSA than after itself.

### Inside requests

The user's token of 0.9 kB and the same contenders, but each verification in a request of its own: in the dependency of
a route on uvicorn, while a client on 16 connections asks as often as it is answered. All take turns of 100 requests in
one server, and each turn counts by its median, so that the brackets are narrower than elsewhere. This is what the
verification itself takes in a busy server. A request pays more: for finding the token, for the nodes of the tree, and
for what the verification displaced from the caches (see [A request](#a-request)).

{inside}

### The size of the token

![By size](../assets/performance-curve.svg)

The cost of reading grows with the token, and so does the digest by which the token cache knows it.

### Refusing

{refusals}

What is wrong in the shape of a token or in its header is refused before RSA; what is wrong in the payload after it,
since nothing is believed before the signature. `payload_twice` has a member that stands twice, and `org` is a token of
another kind that the same team signs.

## The token cache

`CloudflareAccess(token_cache_size=1000)` keeps the tokens used last, each under its SHA-256, so that a signature is
checked once. It is off by default.

- Only a token that passed everything is kept.
- On each hit its key must still be the one in use, and fresh enough; expired keys give 503 as without a cache.
- On each hit `exp`, `nbf` and `iat` are compared with the clock.
- Callers of this package's own models are frozen all the way down, and shared. Of a model of yours every request gets a
  caller of its own, made and validated anew; only RSA is saved.
- It holds `token_cache_size` tokens, some 3 kB each, and forgets the one used longest ago.

## A request

![Requests compared](../assets/performance-requests.svg)

{requests}

The *ratio* is that of the rates to the reference: to the app with the empty tree and one RSA operation, for the router
to one with that tree on a router, for the token cache and SHA-256 to the empty tree alone. In brackets: the lowest and
the highest of the rounds. Those that a promise or its explanation is about, and their references, were measured in
four processes each, since one process may lie better in memory than the next; the others in one. Every app is sent the
same headers: the token as assertion, as cookie and as bearer, since each peer looks in another place. The way through
ASGI, without a server:

{asgi}

## Under trouble

![Under trouble](../assets/performance-trouble.svg)

The p99 of callers with a known key, in milliseconds: quiet; while the certs endpoint hangs and tokens of unknown keys
ask for it; while the keys rotate and callers of the new key come; and while somebody sends 200 tokens a second with
unknown keys. *Tries* counts the fetches that were begun while the endpoint hung: who began none did not notice that it
hangs. *New key* is how long it took, on a quiet server, until the first token of a new key passed; the last fetch was
more than 30 seconds ago, so that everybody would fetch again.

{trouble}

## What grows

![What grows](../assets/performance-scale.svg)

{scale}

A known key is one read of a dictionary, audiences are a set, and a policy is asked only where it stands: none of these
grow. Each further claim of a token is read, checked and frozen. Requests per second with one worker and with two, on a
machine whose cores the load shares: {workers}.

## Footprint

{footprint}

## The local Access

What stands before an app adds to a request, on one connection that stays open:

{edge}
"""


def render(results: Results) -> str:
    """The page."""
    parts = {
        "machine": _machine(results["machine"]),
        "aims": _aims(aims(results)),
        "explanations": table(("", "measured"), ((about, f"{one:.2g}") for about, one in explanations(results))),
        "tokens": _tokens(results["verification"]),
        "inside": _inside(results["inside"]),
        "cold": _both(results["inside"], "this package"),
        "cached": _both(results["inside"], "this package, token cache"),
        "refusals": _ratios(results["verification"]["refusals"], "refused for", "times one RSA"),
        "requests": _requests(results["requests"]),
        "asgi": _ratios(results["requests"]["asgi"], "", "times the unprotected"),
        "trouble": _trouble(results["trouble"]),
        "scale": _scale(results["scale"]),
        "workers": " and ".join(f"{rate:,.0f}" for rate in results["scale"]["workers"].values()),
        "footprint": _footprint(results["footprint"]),
        "edge": _edge(results["edge"]),
    }
    return PAGE.format(**parts)


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown, figures to the right."""
    heads = list(head)
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *[[str(cell) for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _machine(found: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    return (
        f"This run: {found['date']}, Python {found['python']}, {found['cores']} cores of {found['processor']}, "
        f"a load average of {found['load before']} before it began, {found['client']}; {versions}."
    )


def _aims(promised: Iterable[Aim]) -> str:
    rows = [
        (
            aim.about,
            f"{'≥' if aim.at_least else '≤'} {aim.most:g}",
            f"{aim.measured:.3g}",
            "yes" if aim.met else "**no**",
        )
        for aim in promised
    ]
    return table(("aim", "bound", "measured", "met"), rows)


def _ratio(one: Results) -> str:
    return f"{one['ratio']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def _ratios(found: Results, first: str, second: str) -> str:
    rows = [(name, *_timed(one)) for name, one in found.items()]
    return table((first, "µs", second), rows)


def _tokens(found: Results) -> str:
    tokens = found["tokens"]
    names = next(iter(tokens.values()))
    rows = [(name, *(_ratio(tokens[token][name]) for token in tokens)) for name in names]
    return table(("times one bare RSA-2048 verification", *tokens), rows)


def _inside(found: Results) -> str:
    rows = [(name, *(cell for http in PROTOCOLS for cell in _timed(found[http][name]))) for name in found["h11"]]
    return table(("", *(head for http in PROTOCOLS for head in (f"µs, {http}", f"times one RSA, {http}"))), rows)


def _timed(one: Results) -> tuple[str, str]:
    return f"{one['microseconds']:.1f}", _ratio(one)


def _both(found: Results, name: str) -> str:
    low, high = (f"{ratio:.2g}" for ratio in sorted(found[http][name]["ratio"] for http in PROTOCOLS))
    return low if low == high else f"{low} to {high}"


def _requests(found: Results) -> str:
    rows = [(name, *(cell for http in PROTOCOLS for cell in _request(found[http][name]))) for name in found["h11"]]
    heads = (f"{head}, {http}" for http in PROTOCOLS for head in ("per second", "p50, p99 in ms", "ratio"))
    return table(("", *heads), rows)


def _request(one: Results) -> tuple[str, str, str]:
    return f"{one['rate']:,.0f}", f"{one['p50']:.1f}, {one['p99']:.1f}", _ratio(one)


def _trouble(found: Results) -> str:
    rows = []
    for name, one in found.items():
        p99 = (one["p99"][phase] for phase in ("quiet", "hang", "rotation", "flood"))
        phases = ("no answer" if value is None else f"{value:.1f}" for value in p99)
        after = one["new key accepted after"]
        passes = "not in 10 s" if after is None else f"{after:.2f} s"
        rows.append((name, *phases, _tries(one.get("fetches while it hung")), passes))
    return table(("", "quiet", "hang", "rotation", "flood", "tries while it hung", "new key passes after"), rows)


def _tries(number: int | None) -> str:
    if number is None:
        return "not counted"
    return str(number) if number else "none: did not notice"


def _scale(found: Results) -> str:
    groups = {name: found[name] for name in ("keys", "audiences", "policies", "claims")}
    rows = [
        (label, _ratio(one))
        for group in groups.values()
        for label, one in group.items()
        if not label.startswith("bare")
    ]
    return table(("", "times the smallest"), rows)


def _edge(found: Results) -> str:
    rows = [(name, f"{one['p50']:.2f}", f"{one['added']:.2f}") for name, one in found.items()]
    return table(("", "p50 in ms", "added"), rows)


def _footprint(found: Results) -> str:
    added, server, grown = found["import"], found["server"], found["grown"]
    rows = [("import, more than FastAPI's", f"{added['wall']:.0f} ms ({added['processor']:.0f} of the processor)")]
    rows += [(f"a server process: {name}", f"{size:.0f} MiB") for name, size in server.items()]
    for size, more in grown.items():
        rows.append(
            (f"after {found['tokens']:,} distinct tokens, token cache of {int(size):,}", f"{more:.1f} MiB more")
        )
    return table(("", "measured"), rows)
