"""One question to get-identity, and what its answer means."""

from typing import Any

from fastapi_cloudflare_access._keys.document import FetchProblem, check_encoding, read_body, request_headers
from fastapi_cloudflare_access._verification.request_token import COOKIE
from fastapi_cloudflare_access._verification.strict import EncodingProblem, parse_json_object
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.protocols import Fetch

OK, BAD_REQUEST, TOO_MANY_REQUESTS, SERVER_ERROR = 200, 400, 429, 500
MAX_IDENTITY = 64 * 1024
"""Number of bytes that an identity document may have."""
NO_SESSION = "no app token set"
"""The `err` of the one documented refusal, which has status 400: the token has no session."""


class WrongAnswer(FetchProblem):
    """The endpoint answered, and the answer is not usable for this user; the message never quotes it.

    It says nothing about other users, so it is no outage.
    """


async def ask(fetch: Fetch, url: str, token: bytes, *, user_id: str) -> tuple[Identity | None, int]:
    """Ask for the identity of the user of a verified token.

    Args:
        fetch: The function that fetches.
        url: The URL of get-identity, on the team domain.
        token: The verified token.
        user_id: Its `sub`, which the identity must have too.

    Returns:
        The identity and its size in bytes; no identity if the token has no session.

    Raises:
        WrongAnswer: The answer is of another status or shape, too long, or about another user.
        FetchProblem: The status is 429 or one of a server error.
        Exception: Any exception of `fetch`.
    """
    headers = request_headers() | {"Cookie": f"{COOKIE}={token.decode('ascii')}"}
    async with fetch(url, headers=headers) as response:
        status = response.status
        if status not in (OK, BAD_REQUEST):
            outage = status == TOO_MANY_REQUESTS or status >= SERVER_ERROR
            raise (FetchProblem if outage else WrongAnswer)(f"a response with HTTP status {int(status)}")
        try:
            check_encoding(response)
            body = await read_body(response, limit=MAX_IDENTITY)
        except FetchProblem as problem:
            raise WrongAnswer(str(problem)) from None
    document = _parse(body)
    if status == BAD_REQUEST:
        if document.get("err") != NO_SESSION:
            raise WrongAnswer("a response with HTTP status 400 that is not documented")
        return None, len(body)
    if document.get("user_uuid") != user_id:
        raise WrongAnswer("the identity is not the one of the token's user")
    identity: Identity = Identity.__pydantic_validator__.validate_python(document)  # admits any field but `user_uuid`
    return identity, len(body)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        return parse_json_object(body)
    except EncodingProblem as problem:
        raise WrongAnswer(f"the document is malformed: {problem}") from None
