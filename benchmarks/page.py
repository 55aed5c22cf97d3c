"""The page of the documentation, written from the results."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aims import (
    BASE,
    EMPTY,
    KNOWN,
    NEW,
    PEERS,
    PROTOCOLS,
    REMEMBERED,
    TOKEN,
    UNPROTECTED,
    VERIFICATION_ALONE,
    VERIFIED,
    Aim,
    aims,
    first,
    others,
)
from serving import BEFORE, CACHED, DISTINCT, RETURNING

Results = Mapping[str, Any]

PAGE = """---
search:
  exclude: true # the guides answer what users search for
---

# Performance

This page compares a route with `access.user` with a route with one empty dependency. If callers return, the protected
route serves {known_share} of the requests per second of the other. If every token is new, it serves {new_share}.
`scripts/bench` measures this on your machine in ten minutes, and writes this page.{short}

![Requests per second](../assets/performance-requests.svg)

{everyone}

- *One empty dependency* is an `async` function that returns at once. Every dependency costs at least that.
- *Returning callers* are {returning} users. Their tokens are in the token cache, which is on by default.
- *Every token new*: {distinct:,} users send requests in turn. The cache keeps {cached:,} tokens, so it never has the
  next one. The package verifies every signature.
- The peers have no token cache. They verify every token of the returning callers.
- *Time added* is processor time, over the ASGI interface, without a server.

## Performance promises

**E** is the time that one empty dependency adds to a request: {e:.1f} µs in this run. **RSA** is the time of one bare
RSA-2048 verification with `cryptography`: {rsa:.1f} µs.

{first}

{kept}

The time of a request has these parts:

- A known token adds {known:.0f} µs. E is FastAPI's part of that, for any dependency. The verification takes
  {remembered:.1f} µs in a loop. The SHA-256 of the token takes {digest:.1f} µs of these. The search among the headers
  takes {find:.1f} µs.
- A new token adds {new:.0f} µs. The verification takes {verified:.0f} µs in a loop, with RSA. It takes longer in a
  request, because other code uses the processor caches between two tokens. One RSA verification in a dependency adds
  {one_rsa:.0f} µs to a request, which is {one_rsa_times:.1f} RSA.

## The token cache

`CloudflareAccess` keeps the last 1,024 verified tokens, each by its SHA-256. So it verifies each signature once.
`token_cache_size=` sets the number; 0 turns the cache off.

- The cache keeps only a token that passed every check.
- On each hit, the key of the token must still be in use and not too old. If it is not, the package verifies the token
  again.
- On each hit, the package compares `exp`, `nbf` and `iat` with the clock.
- Requests share the claims of this package's own models, which are immutable at every level. For a model of your own,
  the package validates the claims again for each request. It saves only the RSA verification.
- A full cache drops the least recently used token. Each token takes about {entry:.1f} kB.

## One verification

This is the time from the bytes of a token to typed claims, with a known key. Peers return a plain dict.

![One verification](../assets/performance-verification.svg)

{tokens}

- The unit is one RSA-2048 verification with `cryptography`, with a prebuilt key and decoded input.
- *New token*: the token cache is off. *Known token*: the token is in the cache.

### The steps of a verification

![The steps of a verification](../assets/performance-where.svg)

The steps besides RSA are: base64url, JSON that rejects duplicate members, the checks of the claims, and the typed and
immutable model. Each step was measured alone. *The rest* is the code between the steps, and their effect on each other:
each step is slower after RSA than after itself.

### The size of the token

![By size](../assets/performance-curve.svg)

A longer token takes longer to parse, and the cache takes longer to compute its SHA-256.

### Inside requests

Here each verification runs in a request of its own, in the dependency of a route on uvicorn. The load comes from 16
connections. The contenders take turns of 100 requests in one server. The result of each turn is its median.

{inside}

### Rejected tokens

{refusals}

A token with a wrong shape or a wrong header is rejected before RSA. A wrong claim is rejected after RSA, because the
package verifies the signature before it trusts the payload. `payload_twice` has a duplicate member. `org` is another
type of token that the same team signs.

## One request

Over sockets, on uvicorn with one worker:

{requests}

- The *share* is the rate, divided by the rate of one empty dependency. The brackets contain the lowest and the highest
  lap.
- *Router and route*: `access` on the router, `access.user` on the route.

Over the ASGI interface:

{asgi}

## During failures

![Time of a request during failures](../assets/performance-trouble.svg)

This is the p99 of callers with a known key, in milliseconds:

- *quiet*: no failure.
- *hang*: the certs endpoint does not respond, and tokens with unknown keys cause fetches. *Fetches* counts the fetches
  that began in this time. A contender without a fetch did not notice that the endpoint hangs.
- *rotation*: the keys rotate, and callers send tokens with the new key.
- *flood*: 200 tokens per second have unknown keys.

*New key* is the time on a quiet server until the first token with a new key is accepted. The last fetch was more than
30 seconds earlier, so every contender may fetch again.

{trouble}

## Scaling

![Time by number of keys, audiences, policies and claims](../assets/performance-scale.svg)

{scale}

The time does not grow with the keys, the audiences or the policies. It grows with the claims, because the package
parses, checks and freezes each claim. One worker serves {one_worker} requests per second. Two workers serve
{two_workers}. The load generator uses the same cores.

## Memory and import

{footprint}

## The local Access

This is the time that a proxy adds to a request, on one connection that stays open:

{edge}

## Parts around the verification

This is the time that a part adds to a request whose token is known, over the ASGI interface and without a framework:

{parts}

The bridge removes the credentials from the headers, copies the scope, and ends a stream with its token. The
revocations are as many as a process holds. A listener for metrics adds more to a new token; the
[guide](../guides/metrics.md) has the figures.

## Other promises

{others}

## How it is measured

- Compare figures within one run only. Ratios also depend on the processor. An earlier version took 1.60 RSA for one
  new token on an AMD EPYC, and 2.05 RSA on an Intel Xeon.
- In a loop and over ASGI, contenders take short turns in one process, in another order each round. A figure is the
  median of the ratios of all rounds. The brackets contain the 10th to the 90th percentile. The time is processor time
  of this process.
- Over sockets, each app has a server process of its own. Each lap starts new processes. With httptools, the first four
  rows above have seven laps. All others have two laps. A ratio is the median of the ratios of all laps.
- Every app gets the same headers. They contain the token as assertion, as cookie and as bearer token, because the peers
  read it from different places.
- {machine}
"""


def render(results: Results) -> str:
    """Return the page."""
    verification, requests, inside = (results[name] for name in ("verification", "requests", "inside"))
    asgi, sockets = requests["asgi"], requests["httptools"]
    loop, steps = verification["tokens"][TOKEN], verification["steps"]
    rsa = asgi[BASE]["microseconds"]
    one_rsa = asgi["one dependency, one RSA verification"]["added"] - asgi[EMPTY]["added"]
    workers = results["scale"]["workers"]
    return PAGE.format(
        known_share=f"{sockets[KNOWN]['ratio']:.0%}",
        new_share=f"{sockets[NEW]['ratio']:.0%}",
        short=_short(results["machine"]),
        everyone=_everyone(requests),
        returning=RETURNING,
        distinct=DISTINCT,
        cached=CACHED,
        e=asgi[EMPTY]["added"],
        rsa=rsa,
        first=_aims(first(results)),
        kept=_kept(aims(results)),
        known=asgi[KNOWN]["added"],
        new=asgi[NEW]["added"],
        remembered=loop[REMEMBERED]["microseconds"],
        verified=loop[VERIFIED]["microseconds"],
        digest=steps["SHA-256"]["microseconds"],
        find=steps["finding the token"]["microseconds"],
        one_rsa=one_rsa,
        one_rsa_times=one_rsa / rsa,
        entry=_kilobytes_of_an_entry(results["footprint"]["grown"]),
        tokens=_tokens(verification),
        inside=_inside(inside),
        refusals=_ratios(verification["refusals"], "rejected for", "times one RSA"),
        requests=_requests(requests),
        asgi=_asgi(asgi),
        trouble=_trouble(results["trouble"]),
        scale=_scale(results["scale"]),
        one_worker=f"{workers['1']:,.0f}",
        two_workers=f"{workers['2']:,.0f}",
        footprint=_footprint(results["footprint"]),
        edge=_edge(results["edge"]),
        parts=_parts(results["parts"]),
        others=_aims(others(results)),
        machine=_machine(results["machine"]),
    )


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table in Markdown, figures to the right."""
    heads = list(head)
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *[[str(cell) for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(found: Results) -> str:
    if not found.get("quick"):
        return ""
    return (
        "\n\n**The figures below come from a short run (`scripts/bench --quick`) on a busy machine. They only show the "
        "form of this page.**"
    )


def _machine(found: Results) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    return (
        f"This run: {found['date']}, Python {found['python']}, {found['cores']} cores of {found['processor']}, "
        f"a load average of {found['load before']} before it began, {found['client']}; {versions}."
    )


def _kilobytes_of_an_entry(grown: Results) -> float:
    size = max(map(int, grown))
    return float(grown[str(size)]) * 1024 / (size - BEFORE)


def _everyone(found: Results) -> str:
    asgi, sockets = found["asgi"], found["httptools"]
    rows = [
        (
            name,
            f"{sockets[name]['rate']:,.0f}",
            f"{sockets[name]['ratio']:.2f}",
            f"{sockets[name]['p50']:.1f}, {sockets[name]['p99']:.1f}",
            _added(asgi.get(name)),
        )
        for name in (UNPROTECTED, EMPTY, KNOWN, NEW, *PEERS)
        if name in sockets
    ]
    heads = ("requests per second", "times one empty dependency", "p50, p99 in ms", "time added, µs")
    return table(("uvicorn with httptools, one worker", *heads), rows)


def _added(one: Results | None) -> str:
    return "not measured" if one is None else f"{one['added']:.0f}"


def _aims(promised: Iterable[Aim]) -> str:
    rows = [(aim.about, _bound(aim), _goal(aim), _measured(aim), "yes" if aim.met else "**no**") for aim in promised]
    if any(goal for _, _, goal, _, _ in rows):
        return table(("promise", "bound", "aim", "measured", "kept"), rows)
    return table(("promise", "bound", "measured", "kept"), [(*row[:2], *row[3:]) for row in rows])


def _bound(aim: Aim) -> str:
    return f"{'≥' if aim.at_least else '≤'} {aim.limit or f'{aim.bound:g}{aim.unit}'}"


def _goal(aim: Aim) -> str:
    return "" if aim.goal is None else f"{aim.goal:.2f}"


def _measured(aim: Aim) -> str:
    return f"{aim.measured:.3g}{aim.unit}" + (f", {aim.detail}" if aim.detail else "")


def _kept(promised: Iterable[Aim]) -> str:
    every = list(promised)
    broken, short = [aim for aim in every if not aim.met], [aim for aim in every if aim.met and not aim.reached]
    if not broken and not short:
        return "Every promise of this page is kept."
    lines = [
        "Not kept:" if broken else "Every promise of this page is kept. Some aims beyond the bounds are not reached:",
        "",
    ]
    lines += [f"- {aim.about}: {_measured(aim)}; the bound is {_bound(aim)}." for aim in broken]
    if broken and short:
        lines += ["", "Kept, but the aim is not reached:", ""]
    lines += [f"- {aim.about}: {_measured(aim)}; the aim is {_goal(aim)}." for aim in short]
    return "\n".join(lines)


def _ratio(one: Results) -> str:
    return f"{one['ratio']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def _ratios(found: Results, head: str, unit: str) -> str:
    rows = [(name, *_timed(one)) for name, one in found.items()]
    return table((head, "µs", unit), rows)


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


def _requests(found: Results) -> str:
    rows = [(name, *(cell for http in PROTOCOLS for cell in _request(found[http][name]))) for name in found["h11"]]
    heads = (f"{head}, {http}" for http in PROTOCOLS for head in ("per second", "p50, p99 in ms", "share"))
    return table(("", *heads), rows)


def _request(one: Results) -> tuple[str, str, str]:
    return f"{one['rate']:,.0f}", f"{one['p50']:.1f}, {one['p99']:.1f}", _ratio(one)


def _asgi(found: Results) -> str:
    empty = found[EMPTY]["added"]
    rows = [
        (name, f"{one['microseconds']:.1f}", f"{one['added']:.1f}", f"{one['added'] / empty:.2f}")
        for name, one in found.items()
        if name != BASE
    ]
    return table(("", "µs", "added, µs", "added, E"), rows)


def _trouble(found: Results) -> str:
    rows = []
    for name, one in found.items():
        p99 = (one["p99"][phase] for phase in ("quiet", "hang", "rotation", "flood"))
        phases = ("no answer" if value is None else f"{value:.1f}" for value in p99)
        after = one["new key accepted after"]
        passes = "not in 10 s" if after is None else f"{after:.2f} s"
        rows.append((name, *phases, _fetches(one.get("fetches while it hung")), passes))
    return table(("", "quiet", "hang", "rotation", "flood", "fetches while it hung", "new key accepted after"), rows)


def _fetches(number: int | None) -> str:
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
    rows = [(name, f"{one['p50']:.2f}", f"{one['added']:.2f}") for name, one in found.items() if isinstance(one, dict)]
    return table(("", "p50 in ms", "added"), rows)


def _parts(found: Results) -> str:
    rows = [(name, f"{one['added']:.1f}") for name, one in found.items() if name not in (BASE, VERIFICATION_ALONE)]
    return table(("", "added, µs"), rows)


def _footprint(found: Results) -> str:
    return table(("", "measured"), _footprints(found))


def _footprints(found: Results) -> Iterator[tuple[str, str]]:
    added = found["import"]
    yield (
        "time that the import adds to FastAPI's",
        f"{added['wall']:.0f} ms ({added['processor']:.0f} of the processor)",
    )
    for name, size in found["server"].items():
        yield f"a server process: {name}", f"{size:.0f} MiB"
    for size, more in found["grown"].items():
        about = f"after {found['tokens']:,} different tokens, token cache of {int(size):,}"
        yield about, f"{more:.1f} MiB more"
