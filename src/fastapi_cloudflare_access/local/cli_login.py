"""`cloudflared access login`: the page that sends tokens to it, and the store that it fetches them from."""

import json
from asyncio import sleep
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as EncodingError

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from starlette.responses import JSONResponse, Response

from fastapi_cloudflare_access.local.config import App
from fastapi_cloudflare_access.local.decision import Forward, decide
from fastapi_cloudflare_access.local.edge_request import EdgeRequest
from fastapi_cloudflare_access.local.local_access import LocalAccess
from fastapi_cloudflare_access.local.nacl_box import KEY_SIZE, seal
from fastapi_cloudflare_access.local.pages import NO_STORE, message
from fastapi_cloudflare_access.local.responses import build_response

CLI_PATH = "/cdn-cgi/access/cli"
CERT_SIGN_PATH = "/cdn-cgi/access/cert_sign"
TRANSFER_PATH = "/transfer/"

POLL = 0.1
"""Seconds between two looks into the store."""
LONG_POLL = 25.0
"""Seconds after which a fetch gets 404; cloudflared asks again, and gives up after a minute."""
MAX_TRANSFERS = 100
"""Most stored transfers; the oldest is removed first."""


def send_to_cli(request: EdgeRequest, app: App | None, local_access: LocalAccess) -> Response:
    """Return the login, or store the user's tokens for the public key in the query."""
    recipient = _public_key(request.query.get("token", ""))
    if tag := request.query.get("aud"):
        app = local_access.app_by_tag(tag)
    if app is None or app.host != request.host or recipient is None:
        return message("This login is not valid", "Start `cloudflared access login` again.", status=400)
    decision = decide(request, app, local_access)
    if not isinstance(decision, Forward):
        return build_response(decision.kind, request, app, local_access)
    session = local_access.state.sessions.get(decision.session)
    if session is None:
        return message("No user is logged in", "A service token needs no login: send its headers.", status=400)
    person = local_access.config.person(session.email)
    tokens = {
        "app_token": local_access.team.app_token(session, person, app, host=request.host),
        "org_token": local_access.team.global_token(session, person),
    }
    key = X25519PrivateKey.generate()
    try:
        sealed = seal(json.dumps(tokens).encode(), recipient, key=key)
    except ValueError:  # a public key that leads to no secret
        return message("This login is not valid", "The key of cloudflared is not valid.", status=400)
    _store(local_access, recipient, b64encode(sealed), key)
    return message("You are logged in", "cloudflared has your tokens. You can close this page.", status=200)


def _store(local_access: LocalAccess, recipient: bytes, sealed: bytes, key: X25519PrivateKey) -> None:
    transfers = local_access.transfers
    while len(transfers) >= MAX_TRANSFERS:
        del transfers[next(iter(transfers))]
    transfers[recipient] = (sealed, urlsafe_b64encode(key.public_key().public_bytes_raw()).decode())


async def fetch_transfer(request: EdgeRequest, local_access: LocalAccess) -> Response:
    """Return the tokens for the public key in the path, once; wait for the login until then."""
    recipient = _public_key(request.path.removeprefix(TRANSFER_PATH))
    if recipient is None:
        return Response("The key is not valid.", 400)
    end = local_access.clock.monotonic() + LONG_POLL
    while recipient not in local_access.transfers:
        if local_access.clock.monotonic() >= end:
            return Response(status_code=404, headers={"cache-control": NO_STORE})
        await sleep(POLL)
    sealed, public_key = local_access.transfers.pop(recipient)
    return Response(sealed, headers={"service-public-key": public_key, "cache-control": NO_STORE})


def refuse_certificate(_request: EdgeRequest, _local_access: LocalAccess) -> Response:
    """Return the error that `cloudflared access ssh-gen` prints."""
    text = "the local Access signs no SSH certificates; use `cloudflared access tcp` instead"
    return JSONResponse({"status": 501, "message": text}, 501)


def _public_key(text: str) -> bytes | None:
    try:
        key = urlsafe_b64decode(text.encode("ascii"))
    except (UnicodeEncodeError, EncodingError, ValueError):
        return None
    return key if len(key) == KEY_SIZE else None
