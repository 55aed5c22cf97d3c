"""The error of a store, and the type of its one parameter that FastAPI must not read from a request."""

from typing import Annotated, TypeAlias

from fastapi_cloudflare_access._not_a_dependency import NotADependency

TeamName: TypeAlias = Annotated[
    str, NotADependency("A method of a store admits every client: write Depends(access), and snapshot_store=… there")
]
"""The name of a team, of lower-case letters, digits, dots and hyphens."""


class StoreProblem(Exception):
    """A store could not be asked, or its response is unusable; the message never quotes the URL or the response."""
