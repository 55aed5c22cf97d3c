"""The get-identity endpoint, on the team domain and on the hosts of the apps."""

from starlette.responses import JSONResponse, Response

from fastapi_cloudflare_access._identity.document import NO_SESSION
from fastapi_cloudflare_access._verification.request_token import COOKIE
from fastapi_cloudflare_access.local.edge_request import EdgeRequest
from fastapi_cloudflare_access.local.local_access import LocalAccess


def get_identity(request: EdgeRequest, local_access: LocalAccess) -> Response:
    """Return the identity of the session.

    Cloudflare documents only the error without a cookie; a session that has ended gets the same here.
    """
    tokens = request.cookies(COOKIE)[:8]
    if not tokens:
        return JSONResponse({"err": NO_SESSION}, 400)
    claims = next(
        (claims for token in tokens if (claims := local_access.team.verified_claims(token, "app", "org"))), None
    )
    if claims is not None and "email" not in claims:
        return JSONResponse({"err": "no identity for a service token"}, 400)
    session = local_access.session_of(claims)
    if session is None:
        return JSONResponse({"err": NO_SESSION}, 400)
    identity = local_access.team.identity(session, local_access.config.person(session.email))
    return JSONResponse(identity, headers={"cache-control": "no-store"})
