"""The signed records of a team in a store."""

from collections.abc import Sequence

from fastapi_cloudflare_access._revocations.record import MAX_RECORD, Completion, Record, RecordProblem, decode, encode
from fastapi_cloudflare_access.stores._signing import SignatureProblem, Signer


class RecordFormat:
    """Signs the records of a team, and checks those that a store returns."""

    __slots__ = ("_issuer", "_issuers", "signer")

    def __init__(self, signer: Signer, issuer: str, former: Sequence[str]) -> None:
        """Create the format of a team.

        Args:
            signer: Signs and verifies.
            issuer: The team domain.
            former: The names that the team had before, whose records are accepted too.
        """
        self.signer = signer
        self._issuer = issuer
        self._issuers = frozenset((issuer, *former))

    def sign(self, record: Record | Completion) -> bytes:
        """Return the signed form of a record."""
        return self.signer.sign(encode(record, issuer=self._issuer))

    def read(self, signed: bytes) -> Record | Completion:
        """Return the record that this team has signed.

        Raises:
            RecordProblem: It is not signed with a secret of the store, of another team, or not known.
        """
        try:
            payload = self.signer.verify(signed, limit=MAX_RECORD)
        except SignatureProblem as problem:
            raise RecordProblem(str(problem)) from None
        return decode(payload, issuers=self._issuers)
