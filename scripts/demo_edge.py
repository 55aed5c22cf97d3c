"""The second act of scripts/demo: an app with a page behind a local Access, for a browser and for services."""

import logging
import sys
import time
from importlib import import_module
from logging.handlers import QueueHandler
from pathlib import Path
from queue import SimpleQueue

import httpx
from demo_output import BOLD, DIM, GREEN, YELLOW, say

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local import Config, Person, RunningAccess, run_local_access
from fastapi_cloudflare_access.local.server import bind, environment

EXAMPLES = Path(__file__).parents[1] / "examples"
PORT = 8787
LOG: SimpleQueue[logging.LogRecord] = SimpleQueue()
"""What the app logs."""
BAD = 400
PEOPLE = (
    Person(
        email="ada@example.com",
        name="Ada Lovelace",
        groups=("admins", "engineering"),
        custom={"department": "Analytical Engines", "since": 1843},
        country="GB",
    ),
    Person(
        email="grace@example.com",
        name="Grace Hopper",
        groups=("engineering",),
        custom={"department": "Compilers", "since": 1952},
    ),
)


def show(local: RunningAccess, title: str, method: str, path: str, headers: dict[str, str]) -> None:
    """Make a call; print the line to paste and what comes back."""
    lines = [f"-H '{name}: {value}'" for name, value in headers.items()]
    say(title, BOLD)
    say(" ".join(["curl", "-i", *([] if method == "GET" else ["-X", method]), local.url(path), *lines]), DIM)
    answer = httpx.request(method, local.url(path), headers=headers, trust_env=False)
    body = answer.headers.get("location", "").partition("?")[0] or answer.text.partition("\n")[0]
    say(f"→ {answer.status_code} {answer.reason_phrase}  {body[:100]}", YELLOW if answer.status_code >= BAD else GREEN)
    while not LOG.empty():
        say(f"  log: {LOG.get().getMessage()}")
    say()


def calls(local: RunningAccess) -> None:
    """Show a person, a service, and who is refused."""
    person = {"cf-access-token": local.control("token", email="ada@example.com")["token"]}
    service = local.service_headers()
    wrong = {**service, "CF-Access-Client-Secret": "wrong"}
    show(local, "A service token starts a job", "POST", "/jobs/backup", service)
    show(local, "With a wrong secret the edge asks to log in", "POST", "/jobs/backup", wrong)
    show(local, "A person who is logged in is greeted with her claims", "GET", "/me", person)
    show(local, "But may not do what is for services", "POST", "/jobs/backup", person)
    show(local, "An unsigned token never reaches the app", "GET", "/me", {"Cf-Access-Jwt-Assertion": "a.b.c"})


def demonstrate(*, once: bool) -> None:
    """Run the app behind a local Access; show the calls, and go on for a browser unless `once`."""
    with run_local_access(config=Config(people=PEOPLE), port=usual_port()) as local, environment(settings(local)):
        logging.getLogger("fastapi_cloudflare_access").addHandler(QueueHandler(LOG))
        sys.path.insert(0, str(EXAMPLES))
        local.mount(import_module("demo_app").app)
        LOG.get()  # that the team is a local one
        say(f"Through the edge: examples/demo_app.py behind a local Access, on {local.url('/')}", BOLD)
        say()
        calls(local)
        say(f"Open {local.url('/')} in a browser, and choose who you are.", BOLD)
        say(f"Keys, sessions and every kind of trouble: {local.team_domain}/")
        while not once:
            time.sleep(0.5)


def settings(local: RunningAccess) -> dict[str, str]:
    """Give the environment of the app: the team, and a service token for its own call."""
    client_id, secret = local.service_headers().values()
    own = {"DEMO_ORIGIN": local.url(""), "DEMO_CLIENT_ID": client_id, "DEMO_CLIENT_SECRET": secret}
    return local.environment | own


def usual_port() -> int:
    """Give the usual port where it is free, else any."""
    try:
        for listener in bind("127.0.0.1", PORT):
            listener.close()
    except ConfigurationError:
        return 0
    return PORT
