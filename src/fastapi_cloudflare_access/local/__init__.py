"""The local Access: a team domain and an edge like Cloudflare's, on the loopback, for development and tests."""

from fastapi_cloudflare_access.local.config import App, Config, Person, Policy, ServiceToken, Team
from fastapi_cloudflare_access.local.config_file import load_config
from fastapi_cloudflare_access.local.running import RunningAccess, run_local_access

__all__ = [
    "App",
    "Config",
    "Person",
    "Policy",
    "RunningAccess",
    "ServiceToken",
    "Team",
    "load_config",
    "run_local_access",
]
