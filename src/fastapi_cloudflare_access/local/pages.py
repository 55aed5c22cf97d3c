"""The HTML pages: they need no scripts, and browsers never frame them."""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

TEMPLATES = Path(__file__).parent / "templates"

NO_STORE = "private, max-age=0, no-store, no-cache, must-revalidate, post-check=0, pre-check=0"


def page(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a rendered page."""
    text = _environment().get_template(template).render(style=_style(), **values)
    return HTMLResponse(text, status_code=status, headers=security_headers())


def message(title: str, *paragraphs: str, status: int, links: dict[str, str] | None = None) -> HTMLResponse:
    """Return a page with a title, paragraphs and links."""
    return page("message.html", status=status, title=title, paragraphs=paragraphs, links=links or {}, code=status)


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
