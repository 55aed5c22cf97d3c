"""What fuzzers call for what a fleet shares: snapshots of keys and records of revocations that come from a store.

Run it with coverage guidance: `python tests/fuzz/fleet_target.py tests/fuzz/fleet_corpus -max_total_time=60`.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

NOW = 1_800_000_000
ISSUER = "https://acme.cloudflareaccess.com"
FORMER = "https://former.cloudflareaccess.com"
SECRET = "fuzzing-" * 5
MICROSECONDS = 1_000_000
DAY = 86_400
STEPS = (-40 * DAY, -31 * DAY, -DAY, -600, -1, 0, 1, 600, DAY, 31 * DAY)
NAMES = ("sub:ada", "sub:eve", "client_id:bot")
ACTIONS = ("log_out", "block", "unblock")
MAX_RECORDS = 12


def load() -> Callable[[bytes], None]:  # noqa: C901, PLR0915 - one function for each kind of input
    """Import the package, instrumented or not, and return the target."""
    from fastapi_cloudflare_access._keys.document import MAX_DOCUMENT
    from fastapi_cloudflare_access._keys.jwks import JwksProblem, parse_jwks
    from fastapi_cloudflare_access._keys.shared_snapshot import SharedSnapshot, SnapshotFormat, SnapshotProblem
    from fastapi_cloudflare_access._revocations.log import RecordFormat
    from fastapi_cloudflare_access._revocations.record import (
        RECORD_LIFETIME,
        Completion,
        Record,
        RecordProblem,
        decode,
        encode,
    )
    from fastapi_cloudflare_access._revocations.table import Table
    from fastapi_cloudflare_access._verification.token_cache import RevocationKeys
    from fastapi_cloudflare_access.stores._signing import Signer

    signer, revoker = Signer(SECRET, purpose="snapshot"), Signer(SECRET, purpose="revocations")
    snapshots, records = SnapshotFormat(signer, ISSUER), RecordFormat(revoker, ISSUER, [FORMER])
    issuers = frozenset((ISSUER, FORMER))

    def raw(data: bytes) -> None:
        """Read what nobody has signed: it is never used."""
        for read in (lambda: snapshots.read(data, now=NOW), lambda: records.read(data)):
            try:
                read()
            except (SnapshotProblem, RecordProblem) as problem:
                message = str(problem)
            else:
                raise AssertionError("a record that nobody signed is used")
            assert len(message) < 100, message
        changed = bytearray(snapshots.sign(SharedSnapshot(NOW, b'{"keys": []}')))
        changed[: len(data)] = data[: len(changed)]
        if bytes(changed) != snapshots.sign(SharedSnapshot(NOW, b'{"keys": []}')):
            with suppress(SnapshotProblem):
                snapshots.read(bytes(changed), now=NOW)
                raise AssertionError("a changed record is used")

    def snapshot(data: bytes) -> None:
        """Read what a worker with the secret may have signed."""
        try:
            found = snapshots.read(signer.sign(data), now=NOW)
        except SnapshotProblem as problem:
            message = str(problem)
            assert len(message) < 100, message
            return
        head, _, document = data.partition(b"\n")
        fields = json.loads(head)
        assert (fields["issuer"], found.document) == (ISSUER, document)
        assert 0 <= found.fetched_at == fields["fetched_at"] <= NOW + 60
        assert len(document) <= MAX_DOCUMENT + 1024
        with suppress(JwksProblem):
            parse_jwks(found.document)

    def record(data: bytes) -> None:
        """Read what a worker with the secret may have signed."""
        try:
            found = records.read(revoker.sign(data))
        except RecordProblem as problem:
            message = str(problem)
            assert len(message) < 100, message
            return
        fields = json.loads(data)
        assert fields["iss"] in issuers
        assert found.at == fields["at"] > 0
        assert decode(encode(found, issuer=ISSUER), issuers=issuers) == found
        if isinstance(found, Completion):
            assert (fields["do"], found.epoch) == ("complete", fields["epoch"])
            return
        right(fields, found)

    def right(fields: dict[str, Any], found: Record) -> None:
        assert (found.action, found.kind, found.key) == (fields["do"], fields["by"], fields["key"])
        assert found.action in ACTIONS
        assert found.kind in ("sub", "email", "client_id", "token")
        assert found.key
        assert (found.until > 0) is (found.action == "block")
        assert found.until - found.at // MICROSECONDS <= RECORD_LIFETIME
        table = Table()
        table.add(found, NOW)
        for keys in (RevocationKeys((found.name,), NOW), RevocationKeys(("sub:someone else",), 0)):
            assert table.refuses(keys, NOW) is refused([found], keys, NOW)

    def table(data: bytes) -> None:
        """Add records in one order and in the other: the table answers as a plain list does."""
        given = [made(*data[start : start + 3]) for start in range(0, len(data) - 2, 3)][:MAX_RECORDS]
        known, reverse = Table(), Table()
        for each in given:
            known.add(each, NOW)
        for each in reversed(given):
            reverse.add(each, NOW)
        for now in (NOW, NOW + DAY, NOW + 32 * DAY):
            for both in (known, reverse):
                both.expire(now)
                assert len(both) == len(both.records())
            for name in NAMES:
                for issued in (now - 30 * DAY, now - DAY, now - 600, now):
                    keys = RevocationKeys((name, "sub:nobody"), issued)
                    expected = refused([each for each in given if ends(each) > NOW], keys, now)
                    assert known.refuses(keys, now) is reverse.refuses(keys, now) is expected, (given, keys, now)

    def made(what: int, at: int, until: int) -> Record:
        kind, _, key = NAMES[(what >> 2) % len(NAMES)].partition(":")
        action: Any = ACTIONS[what % len(ACTIONS)]
        time = NOW + STEPS[at % len(STEPS)]
        end = max(time + 1, min(time + RECORD_LIFETIME, NOW + STEPS[until % len(STEPS)])) if action == "block" else 0
        return Record(action, kind, key, time * MICROSECONDS + at, end)  # type: ignore[arg-type]

    def ends(each: Record) -> int:
        return max(each.until, each.at // MICROSECONDS + (0 if each.action == "block" else RECORD_LIFETIME))

    kinds = (raw, snapshot, record, table)

    def one_input(data: bytes) -> None:
        if data:
            kinds[data[0] % len(kinds)](data[1:])

    return one_input


def refused(records: list[Any], keys: Any, now: int) -> bool:
    """Check whether a token is revoked, written a second time: by all records, in no order."""
    names, issued = keys
    mine = [each for each in records if each.name in names]
    if any(each.action == "log_out" and issued <= each.at // MICROSECONDS for each in mine):
        return True
    return any(
        block.action == "block"
        and now < block.until
        and not any(each.action == "unblock" and each.name == block.name and each.at > block.at for each in mine)
        for block in mine
    )


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[1])]
    from fuzz.guided import fuzz

    names = (
        "_keys.shared_snapshot",
        "_revocations.record",
        "_revocations.table",
        "_revocations.log",
        "stores._signing",
    )
    fuzz(load, names)
