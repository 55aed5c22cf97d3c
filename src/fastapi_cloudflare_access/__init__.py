"""FastAPI dependencies that admit only callers that Cloudflare Access has authenticated."""

from fastapi_cloudflare_access._requests.responses import AccessHTTPException, AccessWebSocketException
from fastapi_cloudflare_access.access import CloudflareAccess
from fastapi_cloudflare_access.any_access import AnyAccess
from fastapi_cloudflare_access.claims import Claims, ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import AccessError, ConfigurationError
from fastapi_cloudflare_access.keys import KeysHealth
from fastapi_cloudflare_access.settings import KeySettings

__all__ = [
    "AccessError",
    "AccessHTTPException",
    "AccessWebSocketException",
    "AnyAccess",
    "Claims",
    "CloudflareAccess",
    "ConfigurationError",
    "KeySettings",
    "KeysHealth",
    "ServiceClaims",
    "UserClaims",
]
