"""What a picture of a simulation was drawn from, so that a test notices when the code says something else."""

import ast
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from fastapi_cloudflare_access.settings import KeySettings

ROOT = Path(__file__).parents[1]
RECORD = Path(__file__).with_name("simulations.json")
PACKAGE = ROOT / "src/fastapi_cloudflare_access"
SOURCES = {
    "unknown-keys.svg": (
        ROOT / "benchmarks/simulate_unknown_keys.py",
        PACKAGE / "_keys/rate_limiter.py",
    ),
    "fleet.svg": (
        ROOT / "benchmarks/simulate_fleet.py",
        ROOT / "benchmarks/plots.py",
        PACKAGE / "_keys/cache.py",
        PACKAGE / "_keys/rate_limiter.py",
    ),
}
"""The code that decides what each picture shows. The defaults of the settings of the keys count too."""


def record(name: str, picture: Path) -> None:
    """Note what a picture was drawn from, and the picture."""
    records: dict[str, dict[str, str]] = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    records[name] = {"code": code(name), "picture": sha256(picture.read_bytes()).hexdigest()}
    RECORD.write_text(json.dumps(dict(sorted(records.items())), indent=2) + "\n")


def code(name: str) -> str:
    """Return a digest of the code behind a picture; comments, docstrings and formatting do not count."""
    parts = [meaning(path.read_text()) for path in SOURCES[name]]
    return sha256("\n".join([*parts, defaults()]).encode()).hexdigest()


def meaning(source: str) -> str:
    """Return the code of a module without its docstrings, comments and formatting."""
    tree: Any = ast.parse(source)
    for node in ast.walk(tree):
        found: Any = node
        if isinstance(getattr(found, "body", None), list):
            found.body = [each for each in found.body if not is_text(each)] or [ast.Pass()]
    return ast.unparse(tree)


def is_text(statement: ast.stmt) -> bool:
    """Check whether a statement is only a text, such as a docstring."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def defaults() -> str:
    """Return the settings of the keys as they are without any setting."""
    fields = {name: field.default for name, field in KeySettings.model_fields.items()}
    return json.dumps(fields, sort_keys=True)
