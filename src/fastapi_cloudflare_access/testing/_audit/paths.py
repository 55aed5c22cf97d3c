"""Paths with which a route can be asked."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Host, Mount

from fastapi_cloudflare_access._routes.tree import Level, Node

HOST = "localhost"
_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
_VALUES = (
    ("~0-audit", "audit/audit"),
    ("~0-audit", "audit"),
    ("a", "A"),
    ("en", "de"),
    ("0e9d5c4e-5d3f-4c6b-9a59-1f0c6a3d2b10", "a3f1c2d4-0b1a-4f6e-8c7d-2e5b9a8f7c60"),
    ("2026-01-01", "1999-12-31"),
    ("true", "false"),
    ("0.5", "7.25"),
    ("7018305", "6030407"),
)
"""Values for path parameters, in pairs that are not alike. They are tried in this order: an earlier route that serves
only some values of a parameter, such as numbers or one segment, must not seem to serve all of them."""
VARIANTS = (0, 1)
"""Indexes into a pair: what one of two unlike paths meets, a route need not answer for every other path."""


def levels_of(node: Node) -> list[Level]:
    """Return the apps that lead to a route, the whole app first."""
    found = [node.level]
    while (mount := found[0].mount) is not None:
        found.insert(0, mount.level)
    return found


def prefix_of(level: Level) -> str:
    """Return the path under which an app is mounted, with the host before it if a host leads to it."""
    mount = level.mount
    if mount is None:
        return ""
    if isinstance(mount.route, Host):
        return f"{mount.route.host}{prefix_of(mount.level)}"
    return prefix_of(mount.level) + (mount.path if isinstance(mount.route, Mount) else "")


def shown_path(node: Node) -> str:
    """Return the path of a route in the whole app; `/*` at its end means every path below."""
    path = prefix_of(node.level) + node.path
    if isinstance(node.route, Host):
        return f"{node.route.host}{path}/*"
    return f"{path.rstrip('/')}/*" if is_tree(node) else path or f"({type(node.route).__name__})"


def is_tree(node: Node) -> bool:
    """Check whether a route serves every path below its own."""
    return node.group is not None or isinstance(node.route, Mount | Host)


def sample_prefix(level: Level, variant: int = 0) -> str | None:
    """Return a path under which an app is mounted, with values for the parameters."""
    mount = level.mount
    if mount is None:
        return ""
    outer = sample_prefix(mount.level, variant)
    own = mounted_at(mount, variant)
    return None if outer is None or own is None else outer + own


def sample_path(node: Node, variant: int = 0) -> str | None:
    """Return a path that the app of a route passes to it, or None if no value fits one of its parameters."""
    own = _filled(node, variant)
    if own is None:
        return None
    return f"{own.rstrip('/')}/{_VALUES[0][variant]}" if is_tree(node) else own


def host_of(node: Node) -> str:
    """Return a host name for which the app passes a request to a route."""
    return _host_of_route(node) or host_of_level(node.level)


def host_of_level(level: Level | None) -> str:
    """Return a host name for which the whole app passes a request to an app that is mounted in it."""
    while level is not None:
        for middleware in getattr(level.app, "user_middleware", ()):
            if middleware.cls is TrustedHostMiddleware:
                return next(iter(_trusted(middleware.kwargs.get("allowed_hosts"))), HOST)
        if level.mount is not None and (host := _host_of_route(level.mount)):
            return host
        level = None if level.mount is None else level.mount.level
    return HOST


def _host_of_route(node: Node) -> str | None:
    return _filled(node, 0, node.route.host) if isinstance(node.route, Host) else None


def _trusted(hosts: Any) -> Iterator[str]:
    for host in hosts or ():
        yield HOST if host == "*" else f"audit{host[1:]}" if host.startswith("*") else host


def mounted_at(mount: Node, variant: int = 0) -> str | None:
    """Return the part of a path that a mount takes away, with values for the parameters."""
    return _filled(mount, variant) if isinstance(mount.route, Mount) else ""


def _filled(node: Node, variant: int, template: str | None = None) -> str | None:
    """Return a path with a value for each parameter."""
    convertors = getattr(node.route, "param_convertors", {})
    path = node.path if template is None else template
    for found in _PARAMETER.finditer(path):
        value = _value(convertors.get(found[1]), variant)
        if value is None:
            return None
        path = path.replace(found[0], value, 1)
    return path


def _value(convertor: Any, variant: int) -> str | None:
    for pair in _VALUES:
        with suppress(Exception):  # the app may have convertors of its own
            if re.fullmatch(convertor.regex, pair[variant]) and convertor.convert(pair[variant]) is not None:
                return pair[variant]
    return None
