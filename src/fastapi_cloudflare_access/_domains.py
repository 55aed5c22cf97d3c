"""Domains of email addresses in one spelling."""

import re

import idna

_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ASCII_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})+")


def normal_domain(text: str, error: Exception) -> str:
    """Return a domain in lower case and as IDNA (UTS 46, nontransitional); a trailing dot is an error.

    Raises:
        Exception: The given error; it is not a domain.
    """
    if text.isascii():
        domain = text.lower()
        if not _ASCII_DOMAIN.fullmatch(domain):
            raise error
        return domain
    try:
        encoded = idna.encode(text, strict=True, uts46=True, std3_rules=True).decode()
    except (idna.IDNAError, UnicodeError):
        raise error from None
    if not _ASCII_DOMAIN.fullmatch(encoded):
        raise error
    return encoded
