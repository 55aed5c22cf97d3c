"""The command line imports without garbage collection, which then is as it was."""

import gc

from fastapi_cloudflare_access.cli.imports import without_garbage_collection


def test_the_garbage_collector_stops_for_the_imports_alone() -> None:
    with without_garbage_collection():
        assert not gc.isenabled()
        with without_garbage_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
