"""The command line `cf-access`: a doctor for everything that goes wrong, and the verification by hand."""

import sys
from collections.abc import Sequence

from fastapi_cloudflare_access.protocols import Clock, Fetch

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of the signal SIGINT."""

_EXTRA = frozenset({"typer", "rich", "click"})


def main(argv: Sequence[str] | None = None, *, clock: Clock | None = None, fetch: Fetch | None = None) -> int:
    """Run one command and give its exit code.

    Args:
        argv: The arguments after the command's name; by default those of the process.
        clock: Where time comes from; by default the machine's clocks.
        fetch: How the certs document is fetched; by default with httpx.

    Returns:
        0 for a good answer, 1 for a bad one, 2 where something must be asked otherwise, 3 where nobody can tell or the
        answer cannot be written, 130 where it was interrupted, 141 where the reader of the answer went away.
    """
    try:
        from fastapi_cloudflare_access.cli.application import run  # noqa: PLC0415 - needs the extra
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write("cf-access needs the extra `cli`: pip install 'fastapi-cloudflare-access[cli]'\n")
        return 2
    except KeyboardInterrupt:  # the imports take a second
        return INTERRUPTED
    return run(sys.argv[1:] if argv is None else list(argv), clock=clock, fetch=fetch)
