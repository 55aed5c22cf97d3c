"""`get-identity`: who a session is, in full, on the team domain and on the hosts of the apps."""

from starlette.responses import JSONResponse, Response

from fastapi_cloudflare_access._verification.request_token import COOKIE
from fastapi_cloudflare_access.local.edge_request import Call
from fastapi_cloudflare_access.local.local_access import Realm

IDENTITY_PATH = "/cdn-cgi/access/get-identity"


def get_identity(call: Call, realm: Realm) -> Response:
    """Tell who the cookie's session is; 400 without a cookie is documented, the other errors are this one's own."""
    tokens = call.cookies(COOKIE)[:8]
    if not tokens:
        return JSONResponse({"err": "no app token set"}, 400)
    claims = next((claims for token in tokens if (claims := realm.team.read(token, "app", "org"))), None)
    if claims is not None and "email" not in claims:
        return JSONResponse({"err": "no identity for a service token"}, 400)
    session = realm.session_of(claims)
    if session is None:
        return JSONResponse({"err": "invalid session"}, 401)
    identity = realm.team.identity(session, realm.config.person(session.email))
    return JSONResponse(identity, headers={"cache-control": "no-store"})
