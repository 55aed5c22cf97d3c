"""The local certificate authority and the server certificate."""

import logging
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
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
    domains = {"acme.cloudflareaccess.com", "acme-renamed.cloudflareaccess.com", "login.cloudflareaccess.org"}
    assert {"app.test", "localhost", "*.localhost", "127.0.0.1"} | domains <= names(files.server)
    for file in (files.server, files.ca.with_name("ca-key.pem")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def certificate(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(file.read_bytes())[0]


def test_the_certificates_end_before_apple_rejects_them(tmp_path: Path) -> None:
    files = create_tls_files(tmp_path, Config())
    now = datetime.now(UTC)
    assert certificate(files.server).not_valid_after_utc - now < timedelta(days=398)
    assert certificate(files.ca).not_valid_after_utc - now < timedelta(days=3651)
    assert certificate(files.server).not_valid_before_utc < now


def test_the_authority_can_only_issue_for_the_hosts_and_reserved_domains(tmp_path: Path) -> None:
    config = Config(apps=(App(name="a", host="app.example.com"), App(name="b", host="b.test")))
    ca = certificate(create_tls_files(tmp_path, config).ca)
    found = ca.extensions.get_extension_for_class(x509.NameConstraints)
    assert found.critical
    assert {str(entry.value) for entry in found.value.permitted_subtrees or ()} == {
        "app.example.com",
        "localhost",
        "test",
        "internal",
        "127.0.0.0/8",
        "::1/128",
    }


def test_the_paths_of_the_files_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = create_tls_files(Path("state"), Config())
    assert files.ca == tmp_path / "state" / "ca.pem"
    ssl.create_default_context(cafile=files.ca)


@pytest.mark.parametrize("reason", ["unlimited", "other hosts"])
def test_an_authority_that_does_not_fit_is_replaced_with_a_warning(
    tmp_path: Path, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    if reason == "unlimited":
        old = trustme.CA()
        old.cert_pem.write_to_path(tmp_path / "ca.pem")
        old.private_key_pem.write_to_path(tmp_path / "ca-key.pem")
    else:
        create_tls_files(tmp_path, Config())
    before = (tmp_path / "ca.pem").read_bytes()
    with caplog.at_level(logging.WARNING):
        create_tls_files(tmp_path, Config(apps=(App(name="a", host="app.example.com"),)))
    assert (tmp_path / "ca.pem").read_bytes() != before
    assert "is a new authority" in caplog.text


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
