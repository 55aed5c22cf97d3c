"""A team's get-identity endpoint with exact counts and scripted faults."""

from http.cookies import SimpleCookie

from fastapi_cloudflare_access._identity.document import NO_SESSION
from fastapi_cloudflare_access._verification.request_token import COOKIE
from fastapi_cloudflare_access.testing._issuer import compact_json
from fastapi_cloudflare_access.testing.endpoint import Answer, Endpoint, SeenRequest, with_body


class IdentityEndpoint(Endpoint):
    """The get-identity endpoint of a team.

    It knows the users of the tokens that the team has signed: `team.set_identity` and `team.end_sessions` change what
    it answers.
    """

    def _good(self, request: SeenRequest) -> Answer:
        cookies = SimpleCookie(request.headers.get("cookie", ""))
        identity = self.team.identity_of(cookies[COOKIE].value) if COOKIE in cookies else None
        if identity is None:
            return with_body(Answer(400, self._headers), compact_json({"err": NO_SESSION}))
        return with_body(Answer(headers=self._headers), compact_json(identity))
