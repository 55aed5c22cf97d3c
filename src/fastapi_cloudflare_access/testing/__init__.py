"""Testing kit for a protected app; the app itself never loads it."""

from fastapi_cloudflare_access._clock import SystemClock
from fastapi_cloudflare_access.testing.auditing import assert_protected
from fastapi_cloudflare_access.testing.certs import CertsEndpoint
from fastapi_cloudflare_access.testing.clock import FakeClock
from fastapi_cloudflare_access.testing.endpoint import SeenRequest
from fastapi_cloudflare_access.testing.fetch import MemoryFetch
from fastapi_cloudflare_access.testing.forgeries import FORGERIES, Forgery
from fastapi_cloudflare_access.testing.identities import IdentityEndpoint
from fastapi_cloudflare_access.testing.overriding import override
from fastapi_cloudflare_access.testing.server import CertsServer
from fastapi_cloudflare_access.testing.team import FakeTeam

__all__ = [
    "FORGERIES",
    "CertsEndpoint",
    "CertsServer",
    "FakeClock",
    "FakeTeam",
    "Forgery",
    "IdentityEndpoint",
    "MemoryFetch",
    "SeenRequest",
    "SystemClock",
    "assert_protected",
    "override",
]
