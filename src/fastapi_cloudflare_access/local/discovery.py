"""The OpenID Connect discovery document of the team domain."""

from starlette.responses import JSONResponse, Response

from fastapi_cloudflare_access.local.edge_request import EdgeRequest
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.settings import CERTS_PATH

CONFIGURATION_PATH = "/.well-known/openid-configuration"


def configuration(_: EdgeRequest, local_access: LocalAccess) -> Response:
    """Return the document; its issuer is the present name of the team, which tokens follow later."""
    issuer = local_access.addresses.issuer
    return JSONResponse(
        {
            "issuer": issuer,
            "jwks_uri": issuer + CERTS_PATH,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }
    )
