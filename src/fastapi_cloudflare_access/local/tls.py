"""TLS with a local certificate authority, which the state folder stores."""

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local.config import TEAM_HOST, Config
from fastapi_cloudflare_access.local.local_access import renamed_domain, transfer_host
from fastapi_cloudflare_access.local.state import create_folder

logger = logging.getLogger("fastapi_cloudflare_access.local")

CA_FILE, CA_KEY_FILE, SERVER_FILE = "ca.pem", "ca-key.pem", "server.pem"
CA_LIFETIME = timedelta(days=3650)
"""Lifetime of a new authority."""
CERTIFICATE_LIFETIME = timedelta(days=397)
"""Lifetime of a server certificate, which each start issues again; Apple rejects more than 825 days."""
_MARGIN = timedelta(days=1)

_LOOPBACK = (x509.IPAddress(IPv4Network("127.0.0.0/8")), x509.IPAddress(IPv6Network("::1/128")))
_RESERVED = ("localhost", "test", "internal")
"""Top-level domains that no public site has (RFC 6761, and ICANN for `internal`)."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The TLS files of the server and of its clients, as absolute paths.

    Attributes:
        ca: Certificate of the authority; for `SSL_CERT_FILE`, `curl --cacert` or a browser.
        server: Key and certificates of the server.
    """

    ca: Path
    server: Path


def create_tls_files(folder: Path, config: Config) -> TlsFiles:
    """Create a server certificate for all hosts, and the authority if it is missing or does not cover them.

    Raises:
        ConfigurationError: The folder cannot be used.
    """
    files = TlsFiles(folder.absolute() / CA_FILE, folder.absolute() / SERVER_FILE)
    domain = config.team.domain
    hosts = [*config.hosts, "localhost", "*.localhost", TEAM_HOST, "::1"]
    hosts += [domain, renamed_domain(domain), str(transfer_host(domain))] if domain else []
    now = datetime.now(UTC)
    try:
        create_folder(folder)
        ca = _load_or_create_ca(folder, hosts, now)
        issued = ca.issue_cert(*dict.fromkeys(hosts), not_before=now - _MARGIN, not_after=now + CERTIFICATE_LIFETIME)
        _write(files.server, issued.private_key_and_cert_chain_pem.bytes())
    except OSError as problem:
        raise ConfigurationError(f"{folder} cannot be written: {problem.strerror}") from None
    except ValueError:
        raise ConfigurationError(f"{folder / CA_FILE} cannot be read; delete it to start again") from None
    return files


def _load_or_create_ca(folder: Path, hosts: list[str], now: datetime) -> trustme.CA:
    certificate, key = folder / CA_FILE, folder / CA_KEY_FILE
    if certificate.exists() and key.exists():
        known = certificate.read_bytes()
        if _is_usable(x509.load_pem_x509_certificate(known), hosts, now):
            return trustme.CA.from_pem(known, key.read_bytes())
        logger.warning("%s is a new authority: trust it again, and remove trust in the old one", certificate)
    cert_pem, key_pem = _new_ca(_permitted_domains(hosts), now)
    _write(key, key_pem)
    _write(certificate, cert_pem)
    return trustme.CA.from_pem(cert_pem, key_pem)


def _is_usable(ca: x509.Certificate, hosts: list[str], now: datetime) -> bool:
    """Return whether the authority is constrained, covers the hosts, and outlives a new server certificate."""
    try:
        constraints = ca.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return False
    domains = {entry.value for entry in constraints.permitted_subtrees or () if isinstance(entry, x509.DNSName)}
    lasts = now + CERTIFICATE_LIFETIME <= ca.not_valid_after_utc
    return lasts and _permitted_domains(hosts) <= domains


def _permitted_domains(hosts: Iterable[str]) -> set[str]:
    """Return the domains that the authority may issue for: the reserved ones, and the other hosts themselves."""
    names = {host for host in hosts if not _is_ip(host) and host.rpartition(".")[2] not in _RESERVED}
    return names | set(_RESERVED)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _new_ca(domains: set[str], now: datetime) -> tuple[bytes, bytes]:
    """Return a new authority and its key, in PEM; nothing outside the loopback and `domains` can be issued with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fastapi-cloudflare-access, local Access")])
    permitted = [*map(x509.DNSName, sorted(domains)), *_LOOPBACK]
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _MARGIN)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), key_pem


def _write(file: Path, content: bytes) -> None:
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as written:
        written.write(content)
