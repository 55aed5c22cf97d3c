"""Pages name the local Access, load nothing, and forbid frames."""

import re
from base64 import b64encode
from hashlib import sha256

from fastapi_cloudflare_access.local.pages import message


def test_every_page_says_that_this_is_a_local_access() -> None:
    text = bytes(message("Title", "a", status=200).body).decode()
    assert "This is a local Access" in text
    assert "never asks for a password" in text
    assert "HTTP" not in text


def test_text_is_escaped() -> None:
    page = message("<script>", "<b>", status=400, links={"<i>": '"><img src=x>'})
    text = bytes(page.body).decode()
    assert "<script>" not in text
    assert "<b>" not in text
    assert "<img" not in text
    assert "HTTP 400" in text


def test_only_the_style_of_the_page_itself_is_allowed() -> None:
    page = message("t", status=200)
    policy = page.headers["content-security-policy"]
    style = re.search(r"<style>(.*?)</style>", bytes(page.body).decode(), re.DOTALL)
    assert style is not None
    assert f"style-src 'sha256-{b64encode(sha256(style[1].encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "<script" not in bytes(page.body).decode()
