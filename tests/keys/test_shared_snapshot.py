"""The format of signed snapshots; lies that only someone with the secret could sign."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from fastapi_cloudflare_access._keys.document import MAX_DOCUMENT
from fastapi_cloudflare_access._keys.shared_snapshot import SharedSnapshot, SnapshotFormat, SnapshotProblem, team_name
from fastapi_cloudflare_access.protocols import MAX_SNAPSHOT
from fastapi_cloudflare_access.stores._signing import Signer

ISSUER = "https://acme.cloudflareaccess.com"
NOW = 1_767_225_600.25
SIGNER = Signer("a" * 32, purpose="snapshot")
FORMAT = SnapshotFormat(SIGNER, ISSUER)


def test_a_snapshot_gives_its_time_and_its_document_again() -> None:
    snapshot = SharedSnapshot(NOW, b'{"keys":\n []}\n')
    assert FORMAT.read(FORMAT.sign(snapshot), now=NOW) == snapshot


def test_the_longest_snapshot_is_within_the_documented_limit() -> None:
    record = SnapshotFormat(SIGNER, "https://" + "a" * 63 + ".fed.cloudflareaccess.com").sign(
        SharedSnapshot(1_767_225_600.123456, b"x" * MAX_DOCUMENT)
    )
    assert len(record) <= MAX_SNAPSHOT


@pytest.mark.conformance(87)
@pytest.mark.parametrize(
    "record", [b"", b"x" * 100, Signer("b" * 32, purpose="snapshot").sign(b"{}\n{}")], ids=range(3)
)
def test_what_is_not_signed_with_the_secret_is_rejected(record: bytes) -> None:
    with pytest.raises(SnapshotProblem, match="it is not "):
        FORMAT.read(record, now=NOW)


@pytest.mark.conformance(88)
def test_a_snapshot_that_is_longer_than_the_limit_is_rejected() -> None:
    head = b'{"issuer":"https://acme.cloudflareaccess.com","fetched_at":%s0}'
    longest = SIGNER.sign(head % (b" " * (1024 - len(head) + 2)) + b"\n" + b"x" * (MAX_DOCUMENT - 1))
    assert FORMAT.read(longest, now=NOW) == SharedSnapshot(0.0, b"x" * (MAX_DOCUMENT - 1))
    with pytest.raises(SnapshotProblem, match="longer than 66560 bytes"):
        FORMAT.read(longest + b"x", now=NOW)
    for document in (b"{}", b"x" * (MAX_DOCUMENT - 2)):
        record = SIGNER.sign(head % (b" " * (1025 - len(head) + 2)) + b"\n" + document)
        with pytest.raises(SnapshotProblem, match="its format is unknown"):
            FORMAT.read(record, now=NOW)


def test_a_snapshot_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        SharedSnapshot(NOW, b"{}").fetched_at = 0  # type: ignore[misc]


@pytest.mark.conformance(88)
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\n{}",
        b"[]\n{}",
        b'{"issuer":"https://acme.cloudflareaccess.com"}\n{}',
        b'{"issuer":"https://acme.cloudflareaccess.com","fetched_at":"0"}\n{}',
        b'{"issuer":"https://acme.cloudflareaccess.com","fetched_at":true}\n{}',
        b'{"issuer":"https://acme.cloudflareaccess.com","fetched_at":-1}\n{}',
        b'{"issuer":"https://acme.cloudflareaccess.com","fetched_at":NaN}\n{}',
        b'{"issuer":"https://acme.cloudflareaccess.com","fetched_at":1,"fetched_at":2}\n{}',
        b'{"issuer":"' + b"x" * 2000 + b'","fetched_at":1}\n{}',
    ],
    ids=["empty", "no head", "a list", "no time", "text", "true", "negative", "NaN", "twice", "long"],
)
def test_another_format_is_rejected(payload: bytes) -> None:
    with pytest.raises(SnapshotProblem, match="its format is unknown"):
        FORMAT.read(SIGNER.sign(payload), now=NOW)


@pytest.mark.conformance(87)
@pytest.mark.parametrize("issuer", [None, 7, "", "https://other.cloudflareaccess.com", ISSUER + "/"])
def test_another_issuer_is_rejected(issuer: Any) -> None:
    record = SnapshotFormat(SIGNER, issuer).sign(SharedSnapshot(NOW, b"{}"))
    with pytest.raises(SnapshotProblem, match="it is of another team"):
        FORMAT.read(record, now=NOW)


def test_a_time_up_to_a_minute_ahead_is_accepted() -> None:
    assert FORMAT.read(FORMAT.sign(SharedSnapshot(NOW + 60, b"{}")), now=NOW).fetched_at == NOW + 60
    with pytest.raises(SnapshotProblem, match="it is from the future"):
        FORMAT.read(FORMAT.sign(SharedSnapshot(NOW + 60.5, b"{}")), now=NOW)


@pytest.mark.parametrize(
    ("issuer", "name"),
    [
        (ISSUER, "acme.cloudflareaccess.com"),
        ("https://acme.fed.cloudflareaccess.com", "acme.fed.cloudflareaccess.com"),
        ("http://127.0.0.1:8000", "127.0.0.1-8000"),
        ("http://localhost:8000", "localhost-8000"),
        ("http://[::1]:8000", "---1--8000"),
    ],
)
def test_the_name_of_a_team_fits_files_and_keys(issuer: str, name: str) -> None:
    assert team_name(issuer) == name
