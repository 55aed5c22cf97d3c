"""The ready file has what a test in any language needs, as long as the local Access runs."""

import json
import stat
from pathlib import Path

import pytest
from support.local_rig import make_local_access

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local.ready_file import ready_file, write_ready_file
from fastapi_cloudflare_access.local.tls import TlsFiles


def test_the_file_has_addresses_credentials_and_variables(tmp_path: Path) -> None:
    local_access, file = make_local_access(), tmp_path / "ready.json"
    with ready_file(file):
        write_ready_file(file, local_access, TlsFiles(Path("ca.pem"), Path("server.pem")))
        content = json.loads(file.read_text())
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    app = local_access.config.apps[0]
    assert content["apps"] == [{"name": "app", "url": "http://localhost:8787/", "audience": app.tag}]
    assert content["team_domain"] == "http://127.0.0.1:8787"
    assert content["control"] == "http://127.0.0.1:8787/control/api/"
    assert content["service_tokens"][0]["client_secret"].startswith("cfast_")
    assert content["environment"]["CF_ACCESS_AUDIENCE"] == app.tag
    assert content["ca_file"] == "ca.pem"


def test_an_old_file_is_removed_at_the_start_and_the_new_one_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    file.write_text("old")
    with ready_file(file):
        assert not file.exists()
        write_ready_file(file, make_local_access(), None)
    assert not file.exists()
    with ready_file(None):
        pass


def test_a_file_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write_ready_file(tmp_path / "file" / "x", make_local_access(), None)
    with pytest.raises(ConfigurationError, match="cannot be written"), ready_file(tmp_path):
        pass
