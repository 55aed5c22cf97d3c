"""What fuzzers call for `access.toml`, the configuration of a local Access.

Run it with coverage guidance: `python tests/fuzz/config_target.py tests/fuzz/config_corpus -max_total_time=60`.
"""

import re
import sys
import tomllib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

_LINE = re.compile(r"\Aaccess\.toml, line ([0-9]+)")
SECRET = "s3cret-s3cret-s3cret"
PARTS = (
    b"[team]\n", b"[[apps]]\n", b"[[apps.policies]]\n", b"[[people]]\n", b"[[service_tokens]]\n", b'name = "shop"\n',
    b'name = "docs"\n', b'host = "shop.localhost"\n', b'host = "127.0.0.1"\n', b'paths = ["/", "/a/"]\n',
    b'decision = "bypass"\n', b'decision = "deny"\n', b'decision = "service_auth"\n', b"everyone = true\n",
    b'emails = ["ada@example.com"]\n', b'domains = ["example.com"]\n', b'groups = ["admins"]\n',
    b'service_tokens = ["bot"]\n', b'name = "bot"\n', b'email = "Ada@Example.com"\n', b'country = "DE"\n',
    b'client_secret = "s3cret-s3cret-s3cret"\n', b'client_secret = "s3cret-s3cret-s3cret \xc3\xa9"\n',
    b'session = "24h"\n', b"session = 0\n", b'upstream = "http://127.0.0.1:8000"\n',
    b"custom = {level = 1, at = 2026-01-01}\n", b"custom.level = 1\n", b'cors_origins = ["https://a.example"]\n',
    b"bypass_options = true\n", b"cors_credentials = true\n", b'oauth_redirects = ["http://a"]\n',
    b'audience = "tag"\n', b"unknown = 1\n",
)  # fmt: skip


class File:
    """A file in memory."""

    name = "access.toml"

    def __init__(self, data: bytes) -> None:
        self._data = data

    def open(self, mode: str) -> BytesIO:
        assert mode == "rb"
        return BytesIO(self._data)

    def __str__(self) -> str:
        return self.name


def load() -> Callable[[bytes], None]:  # noqa: C901 - one function for each kind of input
    """Import the package, instrumented or not, and return the target."""
    from fastapi_cloudflare_access.errors import ConfigurationError
    from fastapi_cloudflare_access.local import policies
    from fastapi_cloudflare_access.local.config import Config, Person
    from fastapi_cloudflare_access.local.config_file import load_config

    def whole(data: bytes) -> None:
        file: Any = File(data)
        try:
            config = load_config(file)
        except ConfigurationError as problem:
            message = str(problem)
            assert message.startswith(("access.toml: ", "access.toml, line "))
            assert SECRET not in message
            if found := _LINE.match(message):
                assert 1 <= int(found[1]) <= data.count(b"\n") + 1
            return
        right(tomllib.loads(data.decode("utf-8-sig").replace("\r\n", "\n")), config)

    def made(data: bytes) -> None:
        """Make a file of lines that the bytes choose."""
        whole(b"".join(PARTS[byte % len(PARTS)] for byte in data[:40]))

    def right(found: dict[str, Any], config: Config) -> None:
        """Check what a configuration admits, and that it can be served."""
        places = [(app.host, path) for app in config.apps for path in app.paths]
        assert len(places) == len({*places})
        assert len({app.tag for app in config.apps}) == len(config.apps) == len(found.get("apps", "x"))
        assert SECRET not in repr(config) or "client_secret" in str(found)
        for app in config.apps:
            assert app.host not in ("127.0.0.1", config.team.domain)
            for person in (*config.people, Person(email="unknown@nowhere.example")):
                assert policies.admits_person(app, person) is admits(app, person)
            if bypass := policies.bypass_policy(app):
                assert (bypass.everyone, bypass.emails, bypass.domains, bypass.groups) == (True, (), (), ())
            for token in config.service_tokens:
                policies.admits_service(app, token.name)

    kinds = (whole, made)

    def one_input(data: bytes) -> None:
        if data:
            kinds[data[0] % len(kinds)](data[1:])

    return one_input


def admits(app: Any, person: Any) -> bool:
    """Check whether the first policy that includes a user allows, written a second time."""
    for policy in app.policies:
        if policy.decision in ("allow", "deny"):
            named = person.email in policy.emails or person.email.split("@")[1] in policy.domains
            if policy.everyone or named or any(group in policy.groups for group in person.groups):
                return bool(policy.decision == "allow")
    return False


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[1])]
    from fuzz.guided import fuzz

    fuzz(load, [f"local.{name}" for name in ("config", "config_file", "toml_lines", "policies")])
