"""TLS with a certificate authority of one's own, made with the first use and kept in the state folder."""

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
    """What the server needs, and what clients have to trust.

    Attributes:
        ca: The certificate of the authority; for `SSL_CERT_FILE`, `curl --cacert` or a browser.
        server: The server's key and certificates.
    """

    ca: Path
    server: Path


def create_tls_files(folder: Path, config: Config) -> TlsFiles:
    """Make a server certificate for all hosts of the local Access.

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
        raise ConfigurationError(f"{folder / CA_FILE} cannot be read; delete it to begin anew") from None
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
