"""Write docs/reference/settings.md, metrics.md and the contents of the API pages, and correct the signatures there.

    python scripts/reference.py          write the pages
    python scripts/reference.py --check  only check that the pages are what this script writes

mkdocstrings loads the class `Signatures`, as mkdocs.yml says.
"""

import ast
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import griffe
from pydantic.fields import FieldInfo

from fastapi_cloudflare_access import CloudflareAccess, KeySettings
from fastapi_cloudflare_access.dependencies import Dependency
from fastapi_cloudflare_access.instrumentation.metrics import ATTRIBUTES, METRICS, Metric
from fastapi_cloudflare_access.settings import ENVIRONMENT_PREFIX, Settings

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/fastapi_cloudflare_access"
PAGE = ROOT / "docs/reference/settings.md"
METRICS_PAGE = ROOT / "docs/reference/metrics.md"
CONSTANTS = {
    "Tokens": ("MAX_TOKEN", "MAX_HEADER", "MAX_UNVERIFIED_PAYLOAD", "MAX_DEPTH", "MAX_COOKIES"),
    "Certs documents": ("MAX_DOCUMENT", "MAX_KEYS", "MIN_BITS", "MAX_KID"),
    "Fetches": (
        "CONNECT_TIMEOUT",
        "STARTUP_ATTEMPTS",
        "JITTER",
        "SHORTEST_FRESHNESS",
        "BACKOFF_BASE",
        "MAX_BACKOFF",
        "MAX_RETRY_AFTER",
        "FETCH_GAP",
    ),
    "Snapshot stores": (
        "STORE_WAIT",
        "SAVE_TIMEOUT",
        "STORE_POLL",
        "STORE_PAUSE",
        "LOCK_MARGIN",
        "MAX_SNAPSHOT",
        "MAX_AHEAD",
        "SNAPSHOT_TTL",
        "SERVER_CONNECT_TIMEOUT",
        "MIN_SECRET",
        "MAX_SECRETS",
    ),
    "Revocations": (
        "MAX_RECORDS",
        "LONGEST_SESSION",
        "RECORD_LIFETIME",
        "MAX_SILENCE",
        "READ_INTERVAL",
        "CATCH_UP_TIMEOUT",
        "READ_TIMEOUT",
        "SETTLING",
        "RESYNC_INTERVAL",
        "MAX_CLOCK_SKEW",
        "MAX_RECORD",
        "MAX_NAME",
    ),
    "Unknown keys": ("NEGATIVE_CACHE_TTLS", "MAX_NEGATIVE_CACHE_ENTRIES", "MAX_WAITERS"),
    "Identities": (
        "MAX_IDENTITY",
        "MAX_IDENTITY_AGE",
        "MAX_SESSIONS",
        "MAX_DOCUMENTS",
        "MAX_IN_FLIGHT",
        "USER_BURST",
        "FAILURES",
        "PAUSE",
        "SHORTEST_RECHECK",
    ),
    "Responses and logs": ("MIN_RETRY_AFTER", "LOG_INTERVAL"),
}
"""The constants on the page, by heading. Of constants that are assigned together, the first is named."""


def descriptions(model: type[Settings | KeySettings]) -> dict[str, str]:
    """Return the docstring of each field; it stands below the field and is not available at run time."""
    (definition,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 - for the type checker
    return {ast.unparse(target): text for target, text in documented(definition.body)}


def documented(statements: list[ast.stmt]) -> Iterator[tuple[ast.expr, str]]:
    """Return the target of each assignment that has a docstring, with the docstring."""
    for statement, following in pairwise(statements):
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = " ".join(str(following.value.value).split())
            if isinstance(statement, ast.AnnAssign):
                yield statement.target, text
            elif isinstance(statement, ast.Assign):
                yield statement.targets[0], text


def settings_table(model: type[Settings | KeySettings]) -> str:
    """Return the table of the settings that a model reads from the environment."""
    described = descriptions(model)
    rows = [
        (f"`{name}`<br>`{ENVIRONMENT_PREFIX}{name.upper()}`", default(field), values(field), described[name])
        for name, field in model.model_fields.items()
        if field.annotation is not KeySettings
    ]
    return table(("setting", "default", "values", "description"), rows)


def default(field: FieldInfo) -> str:
    """Return the default as the environment would set it."""
    if field.is_required():
        return "none"
    if field.default is None or field.default == ():
        return "not set"
    if isinstance(field.default, bool | int | float):
        return number(field.default)
    parts: Any = (field.default,) if isinstance(field.default, str) else field.default
    return f"`{','.join(parts)}`"


def values(field: FieldInfo) -> str:
    """Return the values that a setting admits."""
    kind: Any = field.annotation
    if kind is bool:
        return "`true`, `false`"
    if limits := {name: limit for part in field.metadata for name, limit in vars_of(part).items()}:
        low = number(limits["ge"]) if "ge" in limits else f"above {number(limits['gt'])},"
        return f"{low} to {number(limits['le'])}"
    if get_origin(kind) in (Union, UnionType):
        kind = get_args(kind)[0]
    several = get_origin(kind) is tuple
    kind = get_args(kind)[0] if several else kind
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    return "one or several" if several else "text"


def vars_of(part: object) -> dict[str, float]:
    """Return the bounds that a part of the metadata of a field sets."""
    return {name: getattr(part, name) for name in ("ge", "gt", "le") if hasattr(part, name)}


def number(value: float) -> str:
    """Return a number as the environment would set it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:.15g}"


def constants() -> str:
    """Return the table of the constants."""
    found = dict(all_constants())
    missing = [name for names in CONSTANTS.values() for name in names if name not in found]
    if missing:
        sys.exit(f"CONSTANTS in scripts/reference.py names what the package no longer has: {', '.join(missing)}")
    rows: list[tuple[str, ...]] = []
    for heading, names in CONSTANTS.items():
        rows.append((f"**{heading}**", "", ""))
        rows += [found[name] for name in names]
    return table(("constant", "value", "description"), rows)


def all_constants() -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Return the row of each constant that the page lists, by the name of the constant."""
    listed = {name for names in CONSTANTS.values() for name in names}
    for path in sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("_*/*.py"), *PACKAGE.glob("stores/**/*.py")]):
        for target, text in documented(ast.parse(path.read_text()).body):
            names = [ast.unparse(each) for each in (target.elts if isinstance(target, ast.Tuple) else [target])]
            if names[0] in listed:
                module = import_module(".".join([PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts]))
                given = [value(getattr(module, name)) for name in names]
                yield names[0], ("<br>".join(f"`{name}`" for name in names), "<br>".join(given), text)


def value(constant: Any) -> str:
    """Return the value of a constant."""
    return ", ".join(map(number, constant)) if isinstance(constant, tuple) else number(constant)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def unit_of(metric: Metric) -> str:
    """Return the kind of a metric, and its unit if it has one."""
    kind = metric.kind.removeprefix("observed_")
    return f"{kind}, `{metric.unit}`" if metric.unit else kind


def metrics_page() -> str:
    """Return the page of the metrics."""
    rows = [
        (
            f"`{metric.name}`<br>`{metric.prometheus_name}`",
            "<br>".join([unit_of(metric), metric.description, *(f"`{name}`" for name in metric.attributes)]),
        )
        for metric in METRICS
    ]
    attributes = [(f"`{name}`<br>`{name.replace('.', '_')}`", text) for name, text in ATTRIBUTES.items()]
    return METRICS_TEXT.format(
        metrics=table(("metric", "kind and unit, description, attributes"), rows),
        attributes=table(("attribute", "values"), attributes),
    )


METRICS_TEXT = """<!-- Written by scripts/reference.py, from the table in the code. -->
# Metrics

The listeners for [Prometheus and OpenTelemetry](../guides/metrics.md) record these metrics. The first name is that of
OpenTelemetry, and the second that of Prometheus. The [attributes](#attributes) are below the description.

{metrics}

## Attributes

The attributes are labels in Prometheus. A label without a value is empty there, and absent in OpenTelemetry.

{attributes}
"""


def page() -> str:
    """Return the page of the settings."""
    return TEXT.format(
        settings=settings_table(Settings), key_settings=settings_table(KeySettings), constants=constants()
    )


TEXT = """<!-- Written by scripts/reference.py: change the text there, and the descriptions in the code. -->
# Settings

Every setting is a keyword argument. If you leave one out, the package reads its environment variable. If the variable
is not set either, the default applies. Numbers on this page are seconds, unless the description names another unit.

The package checks all settings when you create the object. It needs no network for that. A value that is missing,
misspelt or out of bounds raises `ConfigurationError`. The message names the setting to change.

Some arguments are objects of your program, so no environment variable sets them: `user_model`, `key_settings`,
`fetch`, `clock`, `listeners`, `snapshot_store` and `revocation_store`. The [API page](api/app.md#the-object) describes
them.

## The object

These are arguments of `CloudflareAccess(…)`.

{settings}

## Keys

These are arguments of `KeySettings(…)`, which you pass as `key_settings`. The guide [Keys](../guides/keys.md) explains
how they work together.

```python
from fastapi_cloudflare_access import CloudflareAccess, KeySettings

access = CloudflareAccess(
    team_domain="acme",
    audience="32eafc7626e737969582a7b2a3b5a1c1d0fe5ba2c40e8f1f6e2ab3a4d8c94228",
    key_settings=KeySettings(refresh_interval=300, max_staleness=3600),
)
```

{key_settings}

These settings depend on each other:

- `degraded_after` must be at least the longest pause between two refreshes, and at most `max_staleness`. The longest
  pause is `refresh_interval` plus a tenth.
- `unknown_kid_interval` must be at most half of `refresh_interval`, because both share one rate limit.
- `startup_timeout` must not be 0 if `fail_fast` is set.

## Errors

A wrong or unknown setting raises `ConfigurationError` with one sentence. The file
`tests/vectors/setting_messages.json` lists more than 140 wrong settings, and the sentence for each.

## The environment and `.env` files

The package reads only the environment of the process. It does **not** read a `.env` file. Use one of these
ways to load such a file:

- `uvicorn app:app --env-file .env`, and `cf-access --env-file .env doctor`;
- `docker run --env-file .env …`;
- `set -a; . ./.env; set +a` in a POSIX shell, before the command;
- `python-dotenv`, which this package installs, before you create the object:

```python
from dotenv import load_dotenv

load_dotenv(".env")  # variables that are set already keep their values
access = CloudflareAccess()
```

If your app has a settings class of its own, pass its values as arguments of `CloudflareAccess(…)`:
[Use settings of your own](../guides/own-settings.md).

## Constants

You cannot set these numbers. The page lists them because logs, health and responses depend on them.

{constants}
"""


DECLARED_WITH_HELPERS: tuple[Callable[..., object], ...] = (
    CloudflareAccess.__init__,
    CloudflareAccess.readiness,
    Dependency.__call__,
    KeySettings.__init__,
)
"""Functions whose defaults the code declares with a helper."""


class Signatures(griffe.Extension):
    """Shows defaults and types as a caller needs them, without the helpers that the code declares them with."""

    names = {"Text": "str", "StrictBool": "bool", "Seconds": "int", "Number": "float", "Count": "int"}  # noqa: RUF012 - never changed

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        """Replace `left_out(10.0)` by `10.0`, and `Annotated[str, _MARKER]` by `str`."""
        defaults = self.defaults().get(func.path, {})
        for parameter in func.parameters:
            parameter.annotation = self.plain(parameter.annotation)
            parameter.default = defaults.get(parameter.name, parameter.default)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Replace `Annotated[Text, Field(…)]` by `str`, and `Documented[Text]` by `str | None`."""
        if attr.module.path.endswith((".settings", ".claims", ".identity")):
            attr.annotation = self.plain(attr.annotation)

    def defaults(self) -> dict[str, dict[str, str]]:
        """Return the defaults of these functions, by the path of the function."""
        return {
            f"{function.__module__}.{function.__qualname__}": {
                name: shown(parameter.default)
                for name, parameter in inspect.signature(function).parameters.items()
                if parameter.default is not parameter.empty
            }
            for function in DECLARED_WITH_HELPERS
        }

    def plain(self, annotation: Any) -> Any:
        """Return an annotation without metadata and without the names of constrained types."""
        if isinstance(annotation, griffe.ExprSubscript) and str(annotation.left) == "Annotated":
            listed: Any = annotation.slice
            return self.plain(listed.elements[0])
        if isinstance(annotation, griffe.ExprSubscript) and str(annotation.left) == "Documented":
            return griffe.ExprBinOp(self.plain(annotation.slice), "|", "None")
        if isinstance(annotation, griffe.Expr):
            for part in annotation.iterate(flat=True):
                if isinstance(part, griffe.ExprName):
                    part.name = self.names.get(part.name, part.name)
        return annotation


def shown(value: object) -> str:
    """Return a default as the code of a caller would write it."""
    if isinstance(value, type):
        return value.__name__
    return "..." if repr(value) == "Ellipsis" else repr(value)


def main(arguments: list[str]) -> int:
    """Return 0 if the pages are what this script writes."""
    import api_contents  # noqa: PLC0415 - mkdocstrings loads this file without its folder

    pages = {PAGE: page(), METRICS_PAGE: metrics_page()} | api_contents.pages()
    if "--check" not in arguments:
        for path, text in pages.items():
            path.write_text(text)
    wrong = [path for path, text in pages.items() if path.read_text() != text]
    for path in wrong:
        print(f"{path.relative_to(ROOT)} is not what the code says: run scripts/reference.py")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
