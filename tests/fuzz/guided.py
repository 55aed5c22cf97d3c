"""Fuzzing with coverage guidance, for the targets that are instrumented by the names of modules."""

import sys
import warnings
from collections.abc import Callable, Collection, Coroutine
from typing import Any

PACKAGE = "fastapi_cloudflare_access"


def fuzz(load: Callable[[], Callable[[bytes], None]], modules: Collection[str]) -> None:
    """Fuzz until told to stop, by the options of libFuzzer.

    Args:
        load: Imports the package and returns the target.
        modules: The modules of the package whose coverage guides the run; no package of it may be among them.
    """
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

    instrumented: Any = atheris.instrument_imports  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
    with instrumented(include=[f"{PACKAGE}.{name}" for name in modules]):
        one_input = load()
    warnings.simplefilter("ignore")  # of Python's parser, about odd texts
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


def finish(work: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")
