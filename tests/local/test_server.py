"""Listening on the loopback alone."""

import os
import socket
from pathlib import Path

import pytest
from support.local_rig import a_realm

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local.config import App, Config, Team
from fastapi_cloudflare_access.local.realm import Addresses
from fastapi_cloudflare_access.local.server import Listeners, bind, environment, environment_of, port_of
from fastapi_cloudflare_access.local.tls import TlsFiles


def test_the_loopback_is_listened_on_in_both_families() -> None:
    listeners = bind("127.0.0.1", 0)
    try:
        assert {listener.getsockname()[0] for listener in listeners} <= {"127.0.0.1", "::1"}
        assert {listener.getsockname()[1] for listener in listeners} == {port_of(listeners)}
    finally:
        for listener in listeners:
            listener.close()


def test_small_messages_do_not_wait_for_each_other() -> None:
    listeners = bind("127.0.0.1", 0)
    assert {listener.proto for listener in listeners} == {socket.IPPROTO_TCP}
    for listener in listeners:
        listener.close()


def test_another_address_is_listened_on_alone() -> None:
    (listener,) = bind("0.0.0.0", 0)
    assert listener.getsockname()[0] == "0.0.0.0"
    listener.close()


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} of 127.0.0.1 is not to be had"):
            bind("127.0.0.1", port)


def test_without_the_second_port_the_first_is_given_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with pytest.raises(ConfigurationError):
            Listeners.open("127.0.0.1", port, listener.getsockname()[1])
        for again in bind("127.0.0.1", port):
            again.close()


def test_listeners_say_where_they_are() -> None:
    listeners = Listeners.open("127.0.0.1", 0, 0)
    addresses = listeners.addresses(Config(team=Team(domain="acme.cloudflareaccess.com")))
    assert addresses == Addresses(port_of(listeners.plain), port_of(listeners.encrypted), "acme.cloudflareaccess.com")
    listeners.close()


def test_the_app_is_told_the_team_and_the_tags_of_what_it_serves() -> None:
    own, other = App(name="own"), App(name="other", host="other.localhost", upstream="http://127.0.0.1:1")
    settings = environment_of(a_realm(own, other))
    assert settings == {"CF_ACCESS_TEAM_DOMAIN": "http://127.0.0.1:8787", "CF_ACCESS_AUDIENCE": own.tag}
    assert environment_of(a_realm(other))["CF_ACCESS_AUDIENCE"] == other.tag


def test_the_app_is_told_whom_to_trust_where_the_team_has_a_real_name() -> None:
    tls = TlsFiles(Path("ca.pem"), Path("server.pem"))
    realm = a_realm(addresses=Addresses(80, 443, "acme.cloudflareaccess.com"))
    assert environment_of(realm, tls)["SSL_CERT_FILE"] == "ca.pem"
    assert "SSL_CERT_FILE" not in environment_of(a_realm(), tls)


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CF_A", "before")
    monkeypatch.delenv("CF_B", raising=False)
    with environment({"CF_A": "now", "CF_B": "now"}):
        assert (os.environ["CF_A"], os.environ["CF_B"]) == ("now", "now")
    assert os.environ["CF_A"] == "before"
    assert "CF_B" not in os.environ
