"""TLS with a local certificate authority, which the state folder stores."""

import os
from dataclasses import dataclass
from pathlib import Path

import trustme

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local.config import TEAM_HOST, Config
from fastapi_cloudflare_access.local.state import create_folder

CA_FILE, CA_KEY_FILE, SERVER_FILE = "ca.pem", "ca-key.pem", "server.pem"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The TLS files of the server and of its clients.

    Attributes:
        ca: Certificate of the authority; for `SSL_CERT_FILE`, `curl --cacert` or a browser.
        server: Key and certificates of the server.
    """

    ca: Path
    server: Path


def create_tls_files(folder: Path, config: Config) -> TlsFiles:
    """Create a server certificate for all hosts, and the authority if it is missing.

    Raises:
        ConfigurationError: The folder cannot be used.
    """
    files = TlsFiles(folder / CA_FILE, folder / SERVER_FILE)
    try:
        create_folder(folder)
        ca = _load_or_create_ca(folder)
        names = [*config.hosts, "localhost", "*.localhost", TEAM_HOST, "::1", *filter(None, [config.team.domain])]
        _write(files.server, ca.issue_cert(*dict.fromkeys(names)).private_key_and_cert_chain_pem.bytes())
    except OSError as problem:
        raise ConfigurationError(f"{folder} cannot be written: {problem.strerror}") from None
    except ValueError:
        raise ConfigurationError(f"{folder / CA_FILE} cannot be read; delete it to start again") from None
    return files


def _load_or_create_ca(folder: Path) -> trustme.CA:
    certificate, key = folder / CA_FILE, folder / CA_KEY_FILE
    if certificate.exists() and key.exists():
        return trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
    ca = trustme.CA(organization_name="fastapi-cloudflare-access, local Access")
    _write(key, ca.private_key_pem.bytes())
    _write(certificate, ca.cert_pem.bytes())
    return ca


def _write(file: Path, content: bytes) -> None:
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as written:
        written.write(content)
