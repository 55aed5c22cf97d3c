"""Go programs, where Debian's compiler and libraries are installed."""

import fcntl
import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

LIBRARIES = Path("/usr/share/gocode")
"""The folder of Go libraries that Debian installs; a build reads no other, and no network."""
OIDC = "github.com/coreos/go-oidc"
PATIENCE = 100
"""Seconds that a build may take."""


def build(source: Path, cache: Path) -> Path | str:
    """Return the program that Go makes from a file, built if it is not there yet, or why there is none.

    Args:
        source: The file.
        cache: A folder that is kept; processes that share it build once.
    """
    go = shutil.which("go")
    if not go:
        return "there is no Go here (Debian: golang-go)"
    if not (LIBRARIES / "src" / OIDC).is_dir():
        return "there is no go-oidc here (Debian: golang-github-coreos-go-oidc-dev)"
    version = subprocess.run([go, "version"], capture_output=True, check=True).stdout
    program = cache / f"{source.stem}-{sha256(version + source.read_bytes()).hexdigest()[:16]}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            command = [go, "build", "-o", str(program), str(source)]
            subprocess.run(command, env=_environment(cache), check=True, timeout=PATIENCE)
    return program


def _environment(cache: Path) -> dict[str, str]:
    """Return an environment in which Go builds from Debian's libraries alone, without modules and without C."""
    offline = {"GO111MODULE": "off", "GOPATH": str(LIBRARIES), "GOPROXY": "off", "GOFLAGS": "", "CGO_ENABLED": "0"}
    return os.environ | offline | {"GOCACHE": str(cache / "objects")}
