"""The dashboard and the alert rules of the example: each name in them is a metric or a label of the table."""

import json
import re
import shutil
import subprocess
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from fastapi_cloudflare_access import KeySettings
from fastapi_cloudflare_access.instrumentation._measuring import OUTCOMES
from fastapi_cloudflare_access.instrumentation.metrics import METRICS, Metric

FOLDER = Path(__file__).parents[2] / "examples/fleet/monitoring"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
ALERTS: dict[str, Any] = import_module("yaml").safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
GUIDE = (Path(__file__).parents[2] / "docs/guides/metrics.md").read_text(encoding="utf-8")
(_ON_THE_PAGE,) = re.findall(r"^```promql\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
OF_GUIDE = [re.sub(r"^#.*\n", "", query, flags=re.MULTILINE) for query in _ON_THE_PAGE.split("\n\n")]
QUERIES = {
    **{f"panel {panel['title']}": [target["expr"] for target in panel["targets"]] for panel in PANELS},
    **{f"alert {rule['alert']}": [rule["expr"]] for rule in RULES},
    "guide": OF_GUIDE,
}
BY_NAME = {metric.prometheus_name: metric for metric in METRICS}
OF_PROMETHEUS = {"instance", "le"}
"""Labels that Prometheus adds, and that of a bucket."""


def metrics_in(expression: str) -> list[tuple[Metric, str]]:
    """Return each metric that an expression names, with the text of its braces."""
    found: list[tuple[Metric, str]] = []
    without_text = re.sub(r'"[^"]*"', lambda text: text[0].replace("{", "(").replace("}", ")"), expression)
    for name, selector in re.findall(r"\b(cloudflare_access_\w+)(?=[\s{\[)=<>]|$)\s*(\{[^}]*\})?", without_text):
        base = re.sub(r"_(?:bucket|count|sum)$", "", name)
        if base != name:
            assert BY_NAME[base].kind == "histogram", name
        elif name in LABELS:
            continue
        assert base in BY_NAME, name
        found.append((BY_NAME[base], selector))
    return found


LABELS = {label for metric in METRICS for label in metric.labels}


def labels_in(expression: str) -> tuple[set[str], set[str]]:
    """Return the labels that the braces of an expression select, and those that it groups by."""
    selected = {
        name for _, selector in metrics_in(expression) for name in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)
    }
    grouped = {name.strip() for names in re.findall(r"\bby \(([^)]*)\)", expression) for name in names.split(",")}
    return selected, grouped


@pytest.mark.parametrize("where", QUERIES)
def test_every_expression_names_metrics_of_the_table_with_labels_of_theirs(where: str) -> None:
    for expression in QUERIES[where]:
        used = [metric for metric, _ in metrics_in(expression)]
        assert used
        selected, grouped = labels_in(expression)
        own = {label for metric in used for label in metric.labels}
        assert selected | grouped <= own | OF_PROMETHEUS
        for metric, selector in metrics_in(expression):
            assert {*re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)} <= {*metric.labels} | OF_PROMETHEUS


@pytest.mark.parametrize("where", QUERIES)
def test_what_grows_is_read_as_a_rate_and_what_is_a_state_is_not(where: str) -> None:
    for expression in QUERIES[where]:
        for name in re.findall(r"\b(cloudflare_access_\w+)", expression):
            metric = BY_NAME.get(re.sub(r"_(?:bucket|count|sum)$", "", name))
            if metric is not None:
                rated = re.search(rf"(?:rate|increase)\(\s*{name}\b", expression)
                assert (rated is not None) is (metric.kind != "gauge"), name


def test_a_name_that_is_no_metric_is_noticed() -> None:
    with pytest.raises(AssertionError, match="cloudflare_access_keys_size"):
        metrics_in("max(cloudflare_access_keys_size) > 1")
    with pytest.raises(AssertionError, match="cloudflare_access_keys_age_seconds_count"):
        metrics_in("rate(cloudflare_access_keys_age_seconds_count[5m])")
    assert labels_in('sum by (a, b) (rate(cloudflare_access_refusals_total{c="}",d=~"x"}[5m]))') == (
        {"c", "d"},
        {"a", "b"},
    )


def test_the_dashboard_shows_every_metric() -> None:
    shown = {metric for panel in PANELS for target in panel["targets"] for metric, _ in metrics_in(target["expr"])}
    assert {metric.name for metric in METRICS} - {metric.name for metric in shown} == set()


def test_reason_codes_and_outcomes_in_expressions_exist() -> None:
    for expressions in QUERIES.values():
        for expression in expressions:
            for values in re.findall(r'error_type=~?"([^"]*)"', expression):
                assert {*values.split("|")} <= OUTCOMES.keys()
            for values in re.findall(r'cloudflare_access_outcome=~?"([^"]*)"', expression):
                known = {"accepted", "rejected", "refused", "unavailable", "ignored", "failed", "limited"}
                assert {*values.split("|")} <= known


def test_the_thresholds_are_the_defaults_of_the_settings() -> None:
    (stale,) = [rule for rule in RULES if rule["alert"] == "CloudflareAccessKeysStale"]
    assert stale["expr"] == f"cloudflare_access_keys_age_seconds > {KeySettings().degraded_after:.0f}"


def test_the_guide_lists_every_alert_with_its_severity() -> None:
    listed = re.findall(r"^\| `(\w+)` \| (\w+) \|", GUIDE, re.MULTILINE)
    assert listed == [(rule["alert"], rule["labels"]["severity"]) for rule in RULES]


def test_every_alert_has_a_severity_a_summary_and_a_description() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}
    names = [rule["alert"] for rule in RULES]
    assert len({*names}) == len(names)


def test_a_template_names_only_labels_that_the_expression_keeps() -> None:
    for rule in RULES:
        _, grouped = labels_in(rule["expr"])
        aggregated = re.match(r"\s*(?:sum|histogram_quantile|absent)\b", rule["expr"])
        kept = grouped if aggregated else {label for metric, _ in metrics_in(rule["expr"]) for label in metric.labels}
        named = {*re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"]))}
        assert named <= kept | (set() if aggregated else {"instance"}), rule["alert"]


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert sorted(panel["id"] for panel in panels) == [*range(1, len(panels) + 1)]
    for first, second in combinations([panel["gridPos"] for panel in panels], 2):
        beside = first["x"] + first["w"] <= second["x"] or second["x"] + second["w"] <= first["x"]
        below = first["y"] + first["h"] <= second["y"] or second["y"] + second["h"] <= first["y"]
        assert beside or below
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_every_panel_has_a_description_and_the_chosen_data_source() -> None:
    for panel in PANELS:
        assert panel["description"].endswith(".")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "instance"]


# the judgement of Prometheus itself


def promtool(*arguments: str, folder: Path) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    ended = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_prometheus_accepts_the_rules_and_the_configuration() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", "alerts.yaml", folder=FOLDER)
    promtool("check", "config", "--syntax-only", "prometheus.yaml", folder=FOLDER)


def test_prometheus_accepts_every_query_of_the_dashboard_and_of_the_guide(tmp_path: Path) -> None:
    queries = [
        target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
        for panel in PANELS
        for target in panel["targets"]
    ]
    queries += OF_GUIDE
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "queries.yaml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", "queries.yaml", folder=tmp_path)


def test_the_alerts_fire_when_they_should(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "alerts.yaml", tmp_path)
    shutil.copy(FOLDER / "alerts_test.yaml", tmp_path)
    assert "SUCCESS" in promtool("test", "rules", "alerts_test.yaml", folder=tmp_path)
