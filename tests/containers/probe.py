"""What `scripts/containers` asks from inside its containers; it needs only the standard library."""

import json
import re
import socket
import ssl
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

TEAM = "https://acme.cloudflareaccess.com"


def instances() -> list[str]:
    """Return the address of each instance of the app, as the Tunnel finds them."""
    return sorted({str(entry[4][0]) for entry in socket.getaddrinfo("app", 8000, type=socket.SOCK_STREAM)})


def status(address: str, token: str = "") -> int:
    """Return the status of a request; without a token if it is empty."""
    headers = {"Cf-Access-Jwt-Assertion": token} if token else {}
    try:
        with urlopen(Request(f"http://{address}:8000/me", headers=headers), timeout=20) as response:
            found: int = response.status
            return found
    except HTTPError as refused:
        return refused.code


def new_token(email: str) -> str:
    """Return a token of a user, from the control page of the local team."""
    body, headers = json.dumps({"email": email}).encode(), {"Content-Type": "application/json"}
    trusted = ssl.create_default_context(cafile="/state/ca.pem")
    request = Request(f"{TEAM}/control/api/token", body, headers)  # noqa: S310 - its scheme is https
    with urlopen(request, timeout=20, context=trusted) as response:  # noqa: S310
        return str(json.load(response)["token"])


def fetches(address: str) -> int:
    """Return how many times an instance fetched the keys, by its metrics."""
    with urlopen(f"http://{address}:9000/metrics", timeout=20) as response:
        counts = re.findall(
            r"^cloudflare_access_keys_fetches_total\{.*\} (.+)$", response.read().decode(), re.MULTILINE
        )
    return sum(int(float(count)) for count in counts)


def connection(host: str) -> str:
    """Return whether the port of Redis can be reached."""
    try:
        socket.create_connection((host, 6379), 3).close()
    except OSError:
        return "unreachable"
    return "reachable"


def read_stream(token: str) -> str:
    """Read a stream of the first instance until the server ends it."""
    head = f"GET /ticks HTTP/1.1\r\nHost: app\r\nCf-Access-Jwt-Assertion: {token}\r\n\r\n"
    with socket.create_connection((instances()[0], 8000), 60) as connected:
        connected.sendall(head.encode())
        while received := connected.recv(65_536):
            if b"tick" in received:
                sys.stdout.write("tick\n")
                sys.stdout.flush()
    return "ended"


def main(what: str, *arguments: str) -> str:
    """Return what the script asks for."""
    if what == "status":
        return " ".join(str(status(address, *arguments)) for address in instances())
    if what == "fetches":
        return " ".join(sorted(str(fetches(address)) for address in instances()))
    if what == "exists":
        return "yes" if Path(*arguments).exists() else "no"
    return {"token": new_token, "connection": connection, "stream": read_stream}[what](*arguments)


if __name__ == "__main__":
    print(main(*sys.argv[1:]))  # noqa: T201 - the script reads it
