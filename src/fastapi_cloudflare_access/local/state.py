"""The state that survives a restart: the team's keys, the secrets of service tokens, and sessions."""

import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import FiniteFloat, TypeAdapter

from fastapi_cloudflare_access.errors import ConfigurationError

FILE_NAME = "state.json"
MAX_SESSIONS = 1000
"""Most stored sessions; the oldest is removed first."""
_OWNER_ONLY = 0o600


@dataclass(slots=True)
class Session:
    """A user's login to the team.

    Attributes:
        id: `identity_nonce` of its tokens.
        email: Address of the user.
        created: Time of the login, in seconds since 1970.
        expires: Time of its expiry, in seconds since 1970.
        ip: IP address of the browser.
        ended: Reason of its end; empty before.
        tokens: Claims of the last token, by AUD tag.
    """

    id: str
    email: str
    created: FiniteFloat
    expires: FiniteFloat
    ip: str = ""
    ended: str = ""
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])


@dataclass(slots=True)
class StoredKey:
    """A private key in PEM, with its creation time in seconds since 1970."""

    pem: str
    issued: FiniteFloat

    @property
    def private(self) -> RSAPrivateKey:
        """The parsed key.

        Raises:
            ValueError: The PEM is not a valid RSA key.
        """
        # Validation of the primes takes 0.1 seconds, and this package wrote the file.
        key = load_pem_private_key(self.pem.encode(), password=None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(key, RSAPrivateKey):
            raise ValueError("not an RSA key")  # noqa: TRY004 - the value is from a file, not an argument
        return key


@dataclass(frozen=True, slots=True)
class Client:
    """A client of managed OAuth, with the redirect URIs that it has registered."""

    redirect_uris: list[str]


@dataclass(frozen=True, slots=True)
class Grant:
    """The permission that a code or a token stands for.

    Attributes:
        client: Id of the client.
        session: Id of the user's session.
        tag: AUD tag of the app.
        expires: Time of its expiry on the team's clock, in seconds since 1970.
        redirect_uri: Redirect URI of the request, for a code.
        challenge: PKCE challenge of the request, for a code.
    """

    client: str
    session: str
    tag: str
    expires: FiniteFloat
    redirect_uri: str = ""
    challenge: str = ""


@dataclass(frozen=True, slots=True)
class OAuthState:
    """The clients of managed OAuth by id, and its grants by the digest of their code or token."""

    clients: dict[str, Client] = field(default_factory=dict[str, Client])
    codes: dict[str, Grant] = field(default_factory=dict[str, Grant])
    access: dict[str, Grant] = field(default_factory=dict[str, Grant])
    refresh: dict[str, Grant] = field(default_factory=dict[str, Grant])


@dataclass(frozen=True, slots=True)
class _Content:
    """The content of the file."""

    keys: list[StoredKey]
    secret: str
    client_secrets: dict[str, str]
    sessions: list[Session]
    oauth: OAuthState = field(default_factory=OAuthState)


class State:
    """The state, in a private folder or only in memory.

    Attributes:
        keys: Published keys, the current one last.
        secret: Key of the CSRF tokens.
        client_secrets: Generated Client Secrets, by Client ID.
        sessions: Sessions, by id.
        oauth: Clients and grants of managed OAuth.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Load the state, if the folder has one.

        Raises:
            ConfigurationError: The file in it is not valid.
        """
        self.keys: list[StoredKey] = []
        self.secret = secrets.token_hex(32)
        self.client_secrets: dict[str, str] = {}
        self.sessions: dict[str, Session] = {}
        self.oauth = OAuthState()
        self._file = folder / FILE_NAME if folder else None
        if self._file and self._file.exists():
            self._load(self._file)

    def client_secret(self, client_id: str) -> str:
        """Return the secret of a service token, in Cloudflare's format."""
        if client_id not in self.client_secrets:
            alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
            self.client_secrets[client_id] = "cfast_" + "".join(secrets.choice(alphabet) for _ in range(48))
            self.save()
        return self.client_secrets[client_id]

    def add_session(self, session: Session) -> None:
        """Add a session, and remove the oldest beyond `MAX_SESSIONS`."""
        self.sessions[session.id] = session
        while len(self.sessions) > MAX_SESSIONS:
            del self.sessions[next(iter(self.sessions))]
        self.save()

    def save(self) -> None:
        """Write the file atomically.

        Raises:
            ConfigurationError: The folder cannot be written.
        """
        if self._file is None:
            return
        try:
            create_folder(self._file.parent)
            write_atomically(self._file, json.dumps(asdict(self._content()), indent=1))
        except OSError as problem:
            raise ConfigurationError(f"{self._file.parent} cannot be written: {problem.strerror}") from None

    def _content(self) -> _Content:
        return _Content(self.keys, self.secret, self.client_secrets, list(self.sessions.values()), self.oauth)

    def _load(self, file: Path) -> None:
        try:
            file.chmod(_OWNER_ONLY)
            content = TypeAdapter(_Content).validate_json(file.read_bytes())
            for key in content.keys:
                _ = key.private
        except (OSError, ValueError):
            raise ConfigurationError(f"{file} cannot be read; delete it to start again") from None
        self.keys, self.secret, self.client_secrets = content.keys, content.secret, content.client_secrets
        self.sessions = {session.id: session for session in content.sessions}
        self.oauth = content.oauth


def create_folder(folder: Path) -> None:
    """Create the state folder with a `.gitignore`, unless it exists.

    Raises:
        OSError: The folder cannot be written.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")


def write_atomically(file: Path, text: str) -> None:
    """Write a file that only its owner can read, and that is never seen in part.

    Raises:
        OSError: The file cannot be written.
    """
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as written:
            written.write(text)
        temporary.replace(file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def to_pem(key: RSAPrivateKey) -> str:
    """Return a key as PEM (PKCS #8)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
