"""An app for several instances: probes for each, and metrics on another port."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from prometheus_client import CollectorRegistry, start_http_server
from starlette.requests import Request
from starlette.responses import Response

from fastapi_cloudflare_access import CloudflareAccess, ServiceClaims, UserClaims
from fastapi_cloudflare_access.instrumentation.prometheus import PrometheusListener
from fastapi_cloudflare_access.stores.redis import RedisStore

METRICS_PORT = int(os.environ.get("METRICS_PORT", "9000"))
# All interfaces: the network of the containers admits only Prometheus.
METRICS_HOST = os.environ.get("METRICS_HOST", "0.0.0.0")  # noqa: S104

metrics = CollectorRegistry()
secrets = os.environ.get("STORE_SECRET", "").split(",")  # the first one signs
if not secrets[0]:
    raise SystemExit("STORE_SECRET is not set: set it as example.env says")
store = RedisStore(os.environ["STORE_URL"], secret=secrets)
access = CloudflareAccess(
    snapshot_store=store,
    revocation_store=store,
    revocations_unavailable="open",  # an outage of Redis is no outage of the app
    listeners=[PrometheusListener(registry=metrics)],
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    server, thread = start_http_server(METRICS_PORT, METRICS_HOST, registry=metrics)
    app.state.metrics_port = server.server_port
    try:
        async with access.lifespan(app):
            yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


app = FastAPI(lifespan=lifespan, dependencies=[Depends(access)], openapi_url=None)
Caller = Annotated[UserClaims | ServiceClaims, Depends(access)]


async def alive(_: Request) -> Response:
    return Response(status_code=204)


# The dependency of the app does not apply to these: probes have no token.
app.add_route("/ready", access.readiness)
app.add_route("/alive", alive)


@app.get("/me")
async def me(caller: Caller) -> dict[str, str]:
    issuer, subject = caller.principal
    return {"issuer": issuer, "subject": subject}
