"""Let only Cloudflare Access callers into a FastAPI app."""

from fastapi_cloudflare_access._answers import AccessRefused, AccessRefusedWebSocket
from fastapi_cloudflare_access.access import CloudflareAccess
from fastapi_cloudflare_access.claims import Claims, ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import AccessError, ConfigurationError
from fastapi_cloudflare_access.health import Health

__all__ = [
    "AccessError",
    "AccessRefused",
    "AccessRefusedWebSocket",
    "Claims",
    "CloudflareAccess",
    "ConfigurationError",
    "Health",
    "ServiceClaims",
    "UserClaims",
]
