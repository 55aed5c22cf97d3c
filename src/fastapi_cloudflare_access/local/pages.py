"""The HTML pages: they need no scripts, and browsers never frame them."""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, JSONResponse
from starlette.types import Receive, Scope, Send

TEMPLATES = Path(__file__).parent / "templates"

NO_STORE = "private, max-age=0, no-store, no-cache, must-revalidate, post-check=0, pre-check=0"


class Message(HTMLResponse):
    """A page with a title and paragraphs, or a JSON object for a client that accepts JSON and not HTML."""

    def __init__(self, text: str, json: dict[str, Any], *, status: int) -> None:
        """Store both contents."""
        super().__init__(text, status_code=status, headers=security_headers())
        self._json = json

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the content that the client accepts."""
        if not accepts_only_json(scope):
            await super().__call__(scope, receive, send)
            return
        response = JSONResponse(self._json, self.status_code)
        replaced = {b"content-type", b"content-length", b"content-security-policy"}
        response.raw_headers += [entry for entry in self.raw_headers if entry[0] not in replaced]
        await response(scope, receive, send)


def accepts_only_json(scope: Scope) -> bool:
    """Return whether the client accepts JSON and does not name HTML, as programs do."""
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept").lower()
    return b"application/json" in accepted and b"text/html" not in accepted


def page(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a rendered page."""
    return HTMLResponse(_rendered(template, **values), status_code=status, headers=security_headers())


def message(
    title: str, *paragraphs: str, status: int, links: dict[str, str] | None = None, **json: Any
) -> HTMLResponse:
    """Return a page with a title, paragraphs and links; its JSON has `message`, `status_code` and the members given."""
    text = _rendered("message.html", title=title, paragraphs=paragraphs, links=links or {}, code=status)
    content = {"message": " ".join([f"{title}.", *paragraphs]), "status_code": status, **json}
    return Message(text, content, status=status)


def _rendered(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(style=_style(), **values)


def security_headers() -> dict[str, str]:
    """Return headers that allow only the page's own style, and forbid frames and caches.

    `form-action` is absent: browsers apply it to every redirect after the form, and apps redirect to any host.
    """
    digest = b64encode(sha256(_style().encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"
    return {
        "cache-control": NO_STORE,
        "content-security-policy": policy,
        "referrer-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _style() -> str:
    return (TEMPLATES / "style.css").read_text(encoding="utf-8")
