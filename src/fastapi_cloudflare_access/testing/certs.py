"""A team's certs endpoint with exact counts and scripted faults; `MemoryFetch` and `CertsServer` serve it."""

from collections.abc import Mapping
from hashlib import sha256

from fastapi_cloudflare_access.settings import IDENTITY_PATH
from fastapi_cloudflare_access.testing._argument_checks import check_seconds
from fastapi_cloudflare_access.testing._issuer import Issuer
from fastapi_cloudflare_access.testing.endpoint import Answer, Endpoint, SeenRequest, with_body
from fastapi_cloudflare_access.testing.identities import IdentityEndpoint


class CertsEndpoint(Endpoint):
    """The certs endpoint of a team, and its get-identity endpoint.

    Faults take effect in the order of their calls. With `times` a fault lasts for that many fetches, otherwise until
    the next fault or `recover()`. A fault with an invalid argument raises `ConfigurationError`.

    Attributes:
        team: The team whose certs are served.
        requests: Every fetch of the certs so far.
        identity: The get-identity endpoint, with counts and faults of its own.
    """

    def __init__(self, team: Issuer, *, headers: Mapping[str, str] | None = None, etag: bool = False) -> None:
        """Serve the team's certs.

        Args:
            team: The team.
            headers: Extra headers of correct responses, such as `{"cache-control": "max-age=60"}`.
            etag: Whether correct responses have an `ETag`, and an unchanged document is answered with 304.

        Raises:
            ConfigurationError: The team is not a `FakeTeam`, or a header is not text.
        """
        super().__init__(team, headers=headers)
        self.identity = IdentityEndpoint(team)
        self._etag = etag

    def answer(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Record a fetch and return its response."""
        if url.endswith(IDENTITY_PATH):
            return self.identity.answer(url, headers)
        return super().answer(url, headers)

    def no_keys(self, *, times: int | None = None) -> None:
        """Answer 200 with a document that contains no keys."""
        self.answer_with(b'{"keys":[],"public_cert":null,"public_certs":[]}', times=times)

    def flap(self, *, times: int | None = None) -> None:
        """Alternate between the present and the latest document, as two edges do after a rotation."""
        former, is_former = self.team.certs_body(), [False]

        def answer(good: Answer) -> Answer:
            is_former[0] = not is_former[0]
            return with_body(good, former) if is_former[0] else good

        self._add(answer, times)

    def lag(self, seconds: float) -> None:
        """Serve the present document for this many seconds on the team's clock, like an edge with a stale cache."""
        check_seconds("seconds", seconds)
        former, end = self.team.certs_body(), self.team.clock.monotonic() + seconds
        self._add(lambda good: with_body(good, former) if self.team.clock.monotonic() < end else good, None)

    def _good(self, request: SeenRequest) -> Answer:
        body = self.team.certs_body()
        if not self._etag:
            return with_body(Answer(headers=self._headers), body)
        etag = f'"{sha256(body).hexdigest()[:16]}"'
        headers = {**self._headers, "etag": etag}
        if request.headers.get("if-none-match") == etag:
            return Answer(304, headers)
        return with_body(Answer(headers=headers), body)
