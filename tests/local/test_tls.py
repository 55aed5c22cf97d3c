"""The local certificate authority and the server certificate."""

import stat
from pathlib import Path

import pytest
from cryptography import x509

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local.config import App, Config
from fastapi_cloudflare_access.local.state import State
from fastapi_cloudflare_access.local.tls import create_tls_files


def names(file: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificates(file.read_bytes())[0]
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in found}


def test_the_certificate_has_all_hosts_and_only_the_owner_can_read_its_key(tmp_path: Path) -> None:
    config = Config(team={"domain": "acme.cloudflareaccess.com"}, apps=(App(name="a", host="app.test"),))  # type: ignore[arg-type]
    files = create_tls_files(tmp_path / "new", config)
    assert {"app.test", "localhost", "*.localhost", "127.0.0.1", "acme.cloudflareaccess.com"} <= names(files.server)
    for file in (files.server, files.ca.with_name("ca-key.pem")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_git_ignores_a_new_folder(tmp_path: Path) -> None:
    create_tls_files(tmp_path / "new", Config())
    State(tmp_path / "new").client_secret("x")
    assert (tmp_path / "new" / ".gitignore").read_text() == "*\n"


def test_an_existing_folder_gets_no_gitignore(tmp_path: Path) -> None:
    create_tls_files(tmp_path, Config())
    State(tmp_path).client_secret("x")
    assert not (tmp_path / ".gitignore").exists()


def test_the_authority_stays_the_same(tmp_path: Path) -> None:
    first = create_tls_files(tmp_path, Config()).ca.read_bytes()
    assert create_tls_files(tmp_path, Config()).ca.read_bytes() == first


def test_a_folder_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        create_tls_files(tmp_path / "file", Config())
    create_tls_files(tmp_path, Config())
    (tmp_path / "ca.pem").write_text("x")
    with pytest.raises(ConfigurationError, match="delete it to start again"):
        create_tls_files(tmp_path, Config())
