"""A `Fetch` by httpx2; the default one uses httpx."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec

from fastapi_cloudflare_access._keys.http import HttpxFetch
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.protocols import FetchResponse


class Httpx2Fetch:
    """A fetch by httpx2 instead of httpx, for `CloudflareAccess(fetch=Httpx2Fetch())`.

    It reads the proxy and the CA certificates from the environment, except for a loopback team, as the default fetch
    does. If no variable names CA certificates, httpx2 chooses them: recent versions trust those of the operating
    system, while httpx trusts those of `certifi`.
    """

    def __init__(self) -> None:
        """Create the fetch; httpx2 is loaded by the first call.

        Raises:
            ConfigurationError: httpx2 is not installed.
        """
        if find_spec("httpx2") is None:
            raise ConfigurationError("Httpx2Fetch needs httpx2: pip install 'fastapi-cloudflare-access[httpx2]'")
        self._remote = HttpxFetch(trust_env=True, library="httpx2")
        self._loopback = HttpxFetch(trust_env=False, library="httpx2")

    def __call__(self, url: str, *, headers: Mapping[str, str]) -> AbstractAsyncContextManager[FetchResponse]:
        """Send a GET request that verifies TLS and follows no redirect; the context closes the connection.

        Args:
            url: The URL, of a team or of a loopback origin.
            headers: The request headers.
        """
        fetch = self._remote if url.startswith("https:") else self._loopback
        return fetch(url, headers=headers)
