"""What type checkers see of the parts for browsers: never executed, read by mypy and pyright.

A line with an ignore comment is an error on purpose; both checkers are told to complain where it is none.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from typing import Any, assert_type

from fastapi import APIRouter, FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.responses import Response

from fastapi_cloudflare_access import AccessHTTPException, CloudflareAccess
from fastapi_cloudflare_access.browser import SameOrigin
from fastapi_cloudflare_access.problems import problem_details, problem_responses

access = CloudflareAccess(team_domain="acme", audience="tag")
app = FastAPI()

assert_type(access.login_url("app.example.com"), str)
assert_type(access.login_url("app.example.com", return_to="/a", audience="tag"), str)
assert_type(access.logout_url(), str)
assert_type(access.logout_url(host="app.example.com", return_to="https://app.example.com/"), str)
access.login_url()  # type: ignore[call-arg]
access.login_url("app.example.com", "/a")  # type: ignore[call-arg]
access.logout_url("https://app.example.com/")  # type: ignore[call-arg]

app.add_middleware(SameOrigin, origins=["https://app.example.com"])
app.add_middleware(SameOrigin, origins="https://app.example.com")
app.add_middleware(SameOrigin)  # type: ignore[call-arg]
app.add_middleware(SameOrigin, origins=[1])  # type: ignore[list-item]
app.mount("/inner", SameOrigin(FastAPI(), origins=("https://app.example.com",)))

for each in (app, Starlette()):
    each.add_exception_handler(AccessHTTPException, problem_details)
    each.add_exception_handler(HTTPException, problem_details)
assert_type(problem_responses(), dict[int | str, dict[str, Any]])
router = APIRouter(responses=problem_responses())


async def call(error: AccessHTTPException, connection: Any) -> None:
    assert_type(await problem_details(connection, error), Response)
