"""Warnings about surroundings in which a browser or an app cannot use the local Access."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from threading import Thread

from fastapi_cloudflare_access.local.cookies import is_trustworthy
from fastapi_cloudflare_access.local.local_access import LocalAccess

logger = logging.getLogger("fastapi_cloudflare_access.local")

HTTPS_PORT = 443

Resolve = Callable[[str], list[str]]


def check_surroundings(local_access: LocalAccess, *, has_server: bool = True) -> Thread | None:
    """Log a warning for each problem; return the thread that resolves names, because that can take seconds."""
    problems = list(port_problems(local_access))
    if not has_server:
        problems += server_problems(local_access)
    for problem in problems:
        logger.warning("%s", problem)
    names = names_to_resolve(local_access)
    if not names:
        return None
    thread = Thread(target=_log_name_problems, args=(names, resolve), name="local-access-names", daemon=True)
    thread.start()
    return thread


def server_problems(local_access: LocalAccess) -> Iterator[str]:
    """Yield a sentence for each app without a server behind the edge."""
    for app in local_access.config.apps:
        if app.upstream is None:
            yield f"nothing answers for {app.name}: name an app or --upstream, or set its upstream in access.toml"


def port_problems(local_access: LocalAccess) -> Iterator[str]:
    """Yield a sentence about ports and cookies that do not fit."""
    addresses = local_access.addresses
    if addresses.domain and addresses.tls_port != HTTPS_PORT:
        yield (
            f"clients expect {addresses.domain} on port 443, and this is port {addresses.tls_port}: "
            "use --tls-port 443, or forward port 443 to it"
        )
    if addresses.tls_port is None and local_access.config.team.secure_cookies:
        for host in local_access.config.hosts:
            if not is_trustworthy(host):
                yield (
                    f"browsers reject Secure cookies from {host} over plain HTTP, so its cookies are not Secure: "
                    "add --tls, or use a host below localhost, to have them as on Cloudflare"
                )


def names_to_resolve(local_access: LocalAccess) -> list[str]:
    """Return the hosts that need an entry in the hosts file."""
    addresses = local_access.addresses
    names = [addresses.domain, addresses.transfer_host, *local_access.config.hosts]
    return [name for name in names if name and not is_trustworthy(name)]


def name_problems(names: list[str], resolve: Resolve) -> Iterator[str]:
    """Yield a sentence for each name that does not lead to this computer."""
    for name in names:
        found = resolve(name)
        if not found:
            yield f"{name} has no address: add the line '127.0.0.1 {name}' to the hosts file of this computer"
        elif not all(_is_loopback(address) for address in found):
            yield (
                f"{name} leads to {found[0]}, not to this computer: "
                f"add the line '127.0.0.1 {name}' to the hosts file of this computer"
            )


def resolve(name: str) -> list[str]:
    """Return the addresses of a name; empty if it has none."""
    with suppress(OSError):
        return [str(entry[4][0]) for entry in socket.getaddrinfo(name, HTTPS_PORT, type=socket.SOCK_STREAM)]
    return []


def _log_name_problems(names: list[str], resolve: Resolve) -> None:
    for problem in name_problems(names, resolve):
        logger.warning("%s", problem)


def _is_loopback(address: str) -> bool:
    return ip_address(address.partition("%")[0]).is_loopback
