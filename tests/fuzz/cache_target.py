"""What fuzzers call for the cache of verified tokens: each input is a sequence of operations.

A verifier with the cache and one without it get the same tokens, over the same keys, on the same clock, for two
audiences. An AssertionError tells that their answers differ. One execution is one whole sequence, not one token.

Run it with coverage guidance: `python tests/fuzz/cache_target.py tests/fuzz/cache_corpus -max_total_time=60`.
"""

import base64
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import product
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[2] / "src"
GUIDES = {"_verifier", "_verification.token_cache", "_verification.token", "_keys.snapshot", "keys"}
"""The modules whose coverage guides the run; atheris knows packages alone, so the others are left out by name."""
NOW = 1_800_000_000
ISSUER = "https://acme.cloudflareaccess.com"
MAX_OPERATIONS = 4
MAX_LENGTH = 1 + 4 * MAX_OPERATIONS
REPORT_EVERY = 1_000_000

SIZES = (1, 2, 4, 64)
MOVES = (1, 9, 10, 11, 30, 31, 61, 600, 1801, 3600, 7201, 90_000)
SHIFTS = (-90_000, -3600, -61, -31, -30, -1, 1, 30, 61, 3600)
AGES = (-61, -30, 0, 1, 31, 600, 7199, 7201)

OFFSETS = (0, -1, 30, 31, 60, -9, -10, -11, 3600, -3600, 100_000)
TIMES: tuple[Any, ...] = (*(NOW + offset for offset in OFFSETS), None, True, NOW + 0.5, 253_402_300_799, "x")
AUDIENCES: tuple[Any, ...] = (["one"], "one", ["two"], "two", ["one", "two"], ["elsewhere"], ["one", 1], None)
CALLERS: tuple[dict[str, Any], ...] = (
    {"sub": "ada", "custom": {"groups": ["b", "a"]}},
    {"sub": "", "common_name": "bot.access"},
    {"sub": "bob", "email": "bob@example.com", "seen": {"x": [2]}},
    {"sub": "ada", "email": "ada@example.com", "custom": {"groups": "all"}},
    {"sub": "eve", "email": "eve@example.com", "custom": None},
    {"sub": "eve", "email": 5},
    {"sub": "", "common_name": ""},
    {"sub": "eve", "type": "org"},
)


class Clock:
    """Both clocks, moved by the operations."""

    def __init__(self) -> None:
        self.wall, self.ticks = float(NOW), 1000.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.ticks

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing sleeps here")


@dataclass
class Tally:
    """How often what happened in this process, so that a run can tell that the cache was used."""

    executions: int = 0
    asked: int = 0
    accepted: int = 0
    from_cache: int = 0
    checked: int = 0


class Mood:
    """The state of an app's own model, for one verifier."""

    def __init__(self) -> None:
        self.refuses = False
        self.visits = 0


def load(*, cheap: bool = False) -> Callable[[bytes], None]:  # noqa: C901, PLR0915 - the operations are one machine
    """Import the package, instrumented or not, and return the target.

    Args:
        cheap: Whether a keyed hash takes the place of RSA, which would take most of the time. That holds for the whole
            process.
    """
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from fuzz.guided import finish
    from pydantic import BaseModel, ConfigDict, PrivateAttr, model_validator

    from fastapi_cloudflare_access import _verifier, errors
    from fastapi_cloudflare_access._keys import cache as key_cache
    from fastapi_cloudflare_access._keys import rate_limiter
    from fastapi_cloudflare_access._keys.document import Document
    from fastapi_cloudflare_access._keys.jwks import JwksProblem, parse_jwks
    from fastapi_cloudflare_access._keys.snapshot import ClockReading
    from fastapi_cloudflare_access._verification.signature import RS256Key
    from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
    from fastapi_cloudflare_access.keys import KeySource
    from fastapi_cloudflare_access.settings import KeySettings, Settings
    from fastapi_cloudflare_access.testing._issuer import SigningKey

    tally = Tally()
    signers = [SigningKey.of(generate_private_key(public_exponent=65_537, key_size=2048)) for _ in range(4)]
    entries = [signer.jwk() for signer in signers]
    entries[3]["kid"] = entries[0]["kid"]  # other material under the same name

    def mac(material: tuple[str, str], signed: bytes) -> bytes:
        return blake2b(signed, key=material[0][:64].encode(), digest_size=16).digest()

    def verifies(key: RS256Key, signature: bytes, signing_input: bytes) -> bool:
        tally.checked += 1
        return signature == mac(key._material, signing_input)

    def sign(number: int, signed: bytes) -> bytes:
        return mac((entries[number]["n"], entries[number]["e"]), signed) if cheap else signers[number].sign(signed)

    if cheap:
        logging.disable()
        setattr(RS256Key, "verifies", verifies)  # noqa: B010 - of a process that does nothing else
        setattr(key_cache, "parse_jwks", lru_cache(parse_jwks))  # noqa: B010 - there are 16 documents

    class Groups(BaseModel):
        groups: list[str] = []

    moods: list[Mood] = [Mood()]

    class OwnClaims(UserClaims):
        """A model of an app: it can be changed, has private state, and a validator that remembers."""

        model_config = ConfigDict(frozen=False)
        custom: Groups = Groups()
        visits: int = 0
        _seen: list[str] = PrivateAttr(default_factory=list)

        @model_validator(mode="after")
        def _visit(self) -> "OwnClaims":
            mood = moods[0]
            mood.visits += 1
            if mood.refuses:
                raise ValueError("not now")
            self.visits = mood.visits
            return self

    @lru_cache(maxsize=4096)
    def made(time_: int, who: int, key: int) -> bytes:
        """Make a token; each byte chooses some of what it says."""
        times = dict(
            zip(("exp", "iat", "nbf"), (TIMES[(time_ >> 4) & 15], TIMES[time_ & 15], TIMES[key & 15]), strict=True)
        )
        claims = {"type": "app", "iss": ISSUER, "aud": AUDIENCES[who & 7], **times, **CALLERS[(who >> 3) & 7]}
        return token_of((key >> 4) & 3, {name: value for name, value in claims.items() if value is not None})

    def token_of(number: int, claims: dict[str, Any]) -> bytes:
        header = {"alg": "RS256", "kid": entries[number]["kid"]}
        signed = b".".join(encode(json.dumps(part).encode()) for part in (header, claims))
        return signed + b"." + encode(sign(number, signed))

    def tokens() -> Iterator[bytes]:
        """Make the tokens that are used most: for each key and audience, and some that end soon or begin late."""
        claims = {"type": "app", "iss": ISSUER, "exp": NOW + 100_000, "iat": NOW, "nbf": NOW}
        for number, caller, audience in product((0, 1), CALLERS[:3], AUDIENCES[:5:2]):
            yield token_of(number, {**claims, "aud": audience, **caller})
        for number, caller in product((2, 3), CALLERS[:2]):
            yield token_of(number, {**claims, "aud": ["one", "two"], **caller})
        for caller, times in product(CALLERS[:2], ({"exp": NOW + 60}, {"iat": NOW + 30}, {"nbf": NOW + 61})):
            yield token_of(0, {**claims, "aud": ["one", "two"], **caller, **times})

    pool = [*tokens()]
    documents = [
        json.dumps({"keys": [entry for bit, entry in enumerate(entries) if mask >> bit & 1]}).encode()
        for mask in range(16)
    ]
    key_settings = KeySettings(max_staleness=7200)
    options: dict[str, Any] = {"team_domain": "acme", "key_settings": key_settings}
    settings = {
        (audience, size): Settings.load(**options, audience=audience, token_cache_size=size)
        for audience in ("one", "two")
        for size in (0, *SIZES)
    }

    def fetch(url: str, *, headers: object) -> Any:
        raise AssertionError("nothing is fetched here")

    class Machine:
        """The key source, and for each audience a verifier with and one without the cache."""

        def __init__(self, model: type[UserClaims], size: int) -> None:
            self.size = size
            self.clock = Clock()
            self.keys = KeySource(settings["one", 0], fetch=fetch, clock=self.clock)
            self.pairs = [
                tuple(
                    _verifier.Verifier(settings[audience, size], keys=self.keys, user_model=model)
                    for size in (self.size, 0)
                )
                for audience in ("one", "two")
            ]
            self.caches = [pair[0]._cache for pair in self.pairs]
            assert all(cache is not None for cache in self.caches)
            assert [pair[1]._cache for pair in self.pairs] == [None, None]
            self.moods = [[Mood(), Mood()], [Mood(), Mood()]]
            store, fresh = self.keys._cache, self.keys._cache.snapshot
            self.starts = []
            for published in range(16):
                store.snapshot = fresh
                self.fetched(published)
                self.starts.append((store.snapshot, store.next_check_at, store.next_check_wall))

        def restart(self, published: int) -> None:
            """Begin a sequence: nothing of the one before is left but the objects."""
            self.clock.wall, self.clock.ticks = float(NOW), 1000.0
            store = self.keys._cache
            store.snapshot, store.next_check_at, store.next_check_wall = self.starts[published]
            store._limiter = rate_limiter.FetchRateLimiter(
                key_settings, uniform=max
            )  # by chance nothing could be repeated
            for cache in self.caches:
                cache._entries.clear()  # type: ignore[union-attr]
            for mood in (*self.moods[0], *self.moods[1]):
                mood.refuses, mood.visits = False, 0

        def ask(self, audience: int, token: bytes, change: int = 0) -> None:
            """Ask both, compare their answers, and then change what they gave as a careless handler might."""
            answers: list[Any] = []
            checks: list[int] = []
            for verifier, mood in zip(self.pairs[audience], self.moods[audience], strict=True):
                moods[0] = mood
                before = tally.checked
                answers.append(answer(verifier, token))
                checks.append(tally.checked - before)
            cached, plain = answers
            tally.asked += 1
            assert type(cached) is type(plain)
            assert cached == plain
            if not isinstance(cached, tuple):
                tally.accepted += 1
                tally.from_cache += checks == [0, 1]
                assert cached.model_fields_set == plain.model_fields_set
                assert cached.__pydantic_private__ == plain.__pydantic_private__
                spoil(cached, change)

        def fetched(self, arg: int) -> None:
            """Take over a fetched document as the key source does, or note that the fetch failed."""
            store, at = self.keys._cache, ClockReading(self.clock.ticks, self.clock.wall)
            wish = key_cache.FetchOptions(may_confirm_removals=bool(arg & 16), force=bool(arg & 32))
            pending = key_cache.PendingFetch(wish, earliest_start=at.monotonic, reserved=0)
            store.record_start(pending)
            if arg & 64:
                store.reject(pending, ConnectionError(), at=at)
                return
            try:
                store.accept(pending, Document(documents[arg & 15], None, None), at=at, seconds=0)
            except JwksProblem as problem:
                store.reject(pending, problem, at=at)

        def seed(self, arg: int) -> None:
            with suppress(errors.ConfigurationError):
                self.keys.seed(documents[arg & 15], fetched_at=self.clock.wall - AGES[arg >> 4 & 7])

        def move(self, seconds: float) -> None:
            self.clock.wall += seconds
            self.clock.ticks += seconds

        def check(self) -> None:
            """Check that no cache has more entries than it may."""
            for cache in self.caches:
                assert len(cache._entries) <= self.size  # type: ignore[union-attr]

    machines = [Machine(model, size) for size, model in product(SIZES, (UserClaims, OwnClaims))]

    def answer(verifier: Any, token: bytes) -> Any:
        """Return the claims, or all that a refusal says."""
        try:
            return finish(verifier.verify(token))
        except errors.AccessError as refusal:
            return type(refusal), str(refusal), refusal.unverified, getattr(refusal, "retry_after", None)

    def spoil(caller: Any, change: int) -> None:
        if isinstance(caller, OwnClaims):
            caller.custom.groups.append("admins")
            caller.email = "root@example.com"
            caller._seen.append("x")
            caller.__pydantic_fields_set__.clear()
            return
        assert type(caller) in (UserClaims, ServiceClaims)
        extra: dict[str, Any] = caller.model_extra
        custom: dict[str, Any] = getattr(caller, "custom", extra)
        with suppress(TypeError, KeyError, AttributeError):  # a claim may be absent, or text
            SPOILS[change](custom, extra)

    def one_input(data: bytes) -> None:
        if not data:
            return
        tally.executions += 1
        if not tally.executions % REPORT_EVERY:
            print(tally, file=sys.stderr, flush=True)  # noqa: T201 - the figures of a long run
        machine = machines[data[0] & 7]
        machine.restart(data[0] >> 3 & 15 ^ 0b0011)  # 0 is both keys of the team
        if data[0] >> 7:
            machine.ask(0, pool[0])
        arguments = iter(data[1:])
        for _, operation in zip(range(MAX_OPERATIONS), arguments, strict=False):
            perform(machine, operation, arguments)
        machine.check()

    def perform(machine: Machine, operation: int, arguments: Iterator[int]) -> None:
        arg = next(arguments, 0)
        audience, change = operation >> 7, operation >> 4 & 7
        match operation & 15:
            case 0 | 1 | 2 | 3 | 4 | 5:
                machine.ask(audience, pool[arg % len(pool)], change)
            case 6:
                machine.ask(audience, changed(pool[arg % len(pool)], next(arguments, 0), next(arguments, 0)))
            case 7 | 8:
                machine.ask(audience, made(arg, next(arguments, 0), next(arguments, 0)), change)
            case 9 | 10 | 11:
                machine.fetched(arg)
            case 12:
                machine.seed(arg)
            case 13:
                machine.move(MOVES[arg % len(MOVES)])
            case 14:
                machine.clock.wall += SHIFTS[arg % len(SHIFTS)]
            case _:
                for mood in machine.moods[audience]:
                    mood.refuses = bool(arg & 1)

    one_input.tally = tally  # type: ignore[attr-defined]
    return one_input


SPOILS: tuple[Callable[[Any, Any], object], ...] = (
    lambda custom, extra: custom.update(groups=["admins"]),
    lambda custom, extra: custom.setdefault("admin", True),
    lambda custom, extra: custom.__init__(admin=True),
    lambda custom, extra: custom["groups"].sort(),
    lambda custom, extra: custom["groups"].__iadd__(["admins"]),
    lambda custom, extra: custom["groups"].clear(),
    lambda custom, extra: extra["seen"].setdefault("admin", True),
    lambda custom, extra: extra["seen"]["x"].append("admins"),
)
"""What a careless handler does to claims; each must fail."""


def encode(data: bytes) -> bytes:
    """Encode base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def changed(token: bytes, place: int, value: int) -> bytes:
    """Replace one byte; low places are those at the end, where the signature is."""
    at = len(token) - 1 - place * len(token) // 256
    return token[:at] + bytes([value]) + token[at + 1 :]


def main() -> None:
    """Fuzz until told to stop, by the options of libFuzzer."""
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

    package = "fastapi_cloudflare_access"
    instrumented: Any = atheris.instrument_imports  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
    root = SOURCE / package
    modules = [path.relative_to(root).with_suffix("") for path in [*root.glob("*.py"), *root.glob("_*/*.py")]]
    others = {".".join(module.parts) for module in modules} - GUIDES
    with instrumented(include=[package], exclude=[package, *(f"{package}.{name}" for name in others)]):
        one_input = load(cheap=True)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.path[:0] = [str(SOURCE), str(Path(__file__).parents[1])]
    main()
