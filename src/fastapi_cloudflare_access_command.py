"""The command `cf-access`, whose imports an interrupt may end as well.

It stands outside the package because importing a module of the package would import the package, FastAPI included,
before anything could catch an interrupt.
"""

INTERRUPTED = 130


def main() -> int:
    """Run the command line and give its exit code."""
    try:
        from fastapi_cloudflare_access.cli import main as run  # noqa: PLC0415 - takes a while, and can be interrupted

        return run()
    except KeyboardInterrupt:
        return INTERRUPTED
