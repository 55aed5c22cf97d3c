"""Proof that no route of an app is open by mistake."""

from collections.abc import Collection
from typing import Any

from fastapi_cloudflare_access._access_base import AccessBase
from fastapi_cloudflare_access.errors import ConfigurationError


def assert_protected(
    app: Any,
    *accesses: AccessBase[Any],
    open: Collection[str] = (),  # noqa: A002 - reads well where it is called
) -> None:
    """Check that every route of an app admits only callers that Cloudflare Access has authenticated.

    The audit reads the tree of dependencies, then sends requests without a token in this process: to routes that are
    declared as protected, mounted apps, documentation pages and everything behind a guard. Endpoints and all other
    dependencies are replaced meanwhile, so no handler runs; middleware runs. The lifespan is not started.

    Args:
        app: The FastAPI or Starlette app, with or without middleware around it.
        *accesses: The objects whose dependencies and guards count, such as `access` and its copies.
        open: The paths that may be open, as the failure shows them: `"/healthz"` for every HTTP method of that path,
            `"GET /healthz"` for one, `"WS /events"` for a WebSocket, `"/static/*"` for a mounted app.

    Raises:
        AssertionError: A route is open and not listed, a listed path is not served, or a declaration is wrong.
        ConfigurationError: An argument is of a wrong type.

    Examples:
        ```python
        from quickstart_app import access, app  # the app of the README

        from fastapi_cloudflare_access.testing import assert_protected

        pages = {"/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
        assert_protected(app, access, open=pages)
        ```
    """
    # Here, because the audit is half of what the kit imports, and the local Access starts without it.
    from fastapi_cloudflare_access.testing._audit.report import check_listed, failure  # noqa: PLC0415
    from fastapi_cloudflare_access.testing._audit.running import audit  # noqa: PLC0415

    listed = check_listed(open)
    if not accesses or not all(isinstance(access, AccessBase) for access in accesses):
        raise ConfigurationError(
            "assert_protected takes the CloudflareAccess object: write assert_protected(app, access)"
        )
    if message := failure(audit(app, accesses), listed):
        raise AssertionError(message)
