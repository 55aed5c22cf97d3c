"""The command line `cf-access`: diagnosis of the configuration, the keys and a token."""

import sys
from collections.abc import Sequence

from fastapi_cloudflare_access.cli.imports import without_garbage_collection
from fastapi_cloudflare_access.protocols import Clock, Fetch

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of the signal SIGINT."""

_EXTRA = frozenset({"typer", "rich", "click"})


def main(argv: Sequence[str] | None = None, *, clock: Clock | None = None, fetch: Fetch | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: The arguments after the command's name; by default those of the process.
        clock: The source of time; by default the machine's clocks.
        fetch: The function that fetches the certs document; by default with httpx.

    Returns:
        0 success, 1 rejected or check failed, 2 usage error, 3 inconclusive, 130 interrupted, 141 output closed.
    """
    try:
        with without_garbage_collection():
            from fastapi_cloudflare_access.cli.application import run  # noqa: PLC0415 - needs the extra
        return run(sys.argv[1:] if argv is None else list(argv), clock=clock, fetch=fetch)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write("cf-access needs the extra `cli`: pip install 'fastapi-cloudflare-access[cli]'\n")
        return 2
    except KeyboardInterrupt:  # the imports take a second
        return INTERRUPTED
