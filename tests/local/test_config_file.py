"""The configuration file: an error is one sentence with the key, and the line of wrong TOML."""

import re
from pathlib import Path

import pytest

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local import config_file
from fastapi_cloudflare_access.local.config import App, Config, Person, Policy, ServiceToken, Team

GOOD = """\
[team]
name = "acme"

[[apps]]
name = "wiki"
[[apps.policies]]
decision = "allow"
domains = ["example.com"]
[[apps.policies]]
decision = "service_auth"
everyone = true

[[apps]]
name = "shop"
host = "shop.localhost"
paths = [
  "/a",
  "/b",
]

[[people]]
email = "ada@example.com"
custom.department = "x"
"""


def problem_of(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError) as wrong:
        config_file.load_config(path)
    return str(wrong.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.toml"


def test_a_file_becomes_a_config(path: Path) -> None:
    path.write_text(GOOD)
    config = config_file.load_config(path)
    assert [app.name for app in config.apps] == ["wiki", "shop"]
    assert config.person("ada@example.com").custom == {"department": "x"}
    assert config.apps[1].paths == ("/a", "/b")


def test_the_template_is_valid(path: Path) -> None:
    config_file.write_template(path)
    config = config_file.load_config(path)
    assert {policy.decision for app in config.apps for policy in app.policies} == {"allow", "service_auth", "bypass"}


def test_the_template_has_every_key(path: Path) -> None:
    config_file.write_template(path)
    named = set(re.findall(r"\b(\w+)(?: =|\])", path.read_text()))
    options = {name for model in (Config, Team, App, Policy, Person, ServiceToken) for name in model.model_fields}
    assert options - named == set()


def test_init_does_not_change_an_existing_file(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="already exists"):
        config_file.write_template(path)
    assert path.read_text() == "mine"


def test_init_reports_why_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written"):
        config_file.write_template(tmp_path / "missing" / "access.toml")


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('name = "acme"', 'nmae = "acme"', "line 2, team.nmae: is not a known key; did you mean name?"),
        ('name = "acme"', "name = 5", "line 2, team.name: must be a text in quotes"),
        ('decision = "allow"', 'decision = "alow"', "line 7, apps[1].policies[1].decision (wiki): Input should be"),
        (
            "everyone = true",
            "emails = ['x']",
            "line 11, apps[1].policies[2].emails[1] (wiki): must be an email address",
        ),
        ('host = "shop.localhost"', 'host = "Shop"', "line 15, apps[2].host (shop): must be a host name"),
        ('name = "acme"', 'name = "a"\nname = "b"', "line 3, name: Cannot overwrite"),
        ('  "/b",', '  "b",', "line 16, apps[2].paths[2] (shop): must be a path"),
        ('name = "shop"', 'name = "wiki"', "line 14, apps[2].name (wiki): appears twice"),
        ('name = "shop"', "", "line 13, apps[2].name: is missing"),
        ('domains = ["example.com"]', "", "line 6, apps[1].policies[1] (wiki): includes no caller"),
        (
            'email = "ada@example.com"',
            '"e mail" = "x"\nemail = "a@b"',
            "line 22, people[1].e mail (a@b): is not a known key",
        ),
        ('paths = [\n  "/a",\n  "/b",\n]', 'paths = "/a"', "line 16, apps[2].paths (shop): must be a list in brackets"),
        ("[[apps.policies]]", "[[app.policies]]", "line 6, app: is not a known key; did you mean apps?"),
        ("everyone = true", "everyone = 'yes!'", "line 11, apps[1].policies[2].everyone (wiki): must be true or false"),
        ("[[people]]", "[people]", "line 21, people (ada@example.com): must be a list in brackets"),
        ('host = "shop.localhost"', "cors_max_age = 'x'", "line 15, apps[2].cors_max_age (shop): must be a number"),
        ("[team]", "[team", "line 1: "),
        ('name = "acme"', "name = ", "line 2, name: Invalid value"),
        ('name = "acme"', "team = 1\n[team.team]\nx = 1", "line 3: "),
        ("[team]", "apps = []\n[team]", "line "),
    ],
)
def test_an_error_names_the_key_and_the_entry(path: Path, old: str, new: str, place: str) -> None:
    assert old in GOOD
    problem = problem_of(path, GOOD.replace(old, new, 1))
    assert problem.startswith(f"access.toml, {place}"), problem
    assert "\n" not in problem


def test_an_error_in_an_inline_table_names_the_key_and_the_entry(path: Path) -> None:
    text = "[[apps]]\nname = 'a'\npolicies = [\n  { everyone = true },\n  { decision = 'x', everyone = true },\n]\n"
    assert problem_of(path, text).startswith("access.toml, line 3, apps[1].policies[2].decision (a): Input should be")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("apps = []", "apps: must not be empty"),
        ("x = [\n1,\n\n", "line 2: "),
        ("nothing = 1", "nothing: is not a known key"),
        ("", ""),
        ("[[apps]]\nname = 'a'\npaths = []\npolicies = []", "apps[1].paths (a): must not be empty"),
        ("a = " + "[" * 5000, "access.toml: a number is too long, or the nesting is too deep"),
        ("a = " + "1" * 5000, "access.toml: a number is too long, or the nesting is too deep"),
        (b"# a\n\xff", "line 2: is not UTF-8"),
        ("#" * 1_000_001, "is larger than 1000000 bytes"),
    ],
)
def test_an_error_names_the_line_if_it_is_known(path: Path, text: str | bytes, problem: str) -> None:
    if problem:
        assert problem in problem_of(path, text)
    else:
        path.write_bytes(b"")
        assert config_file.load_config(path).apps == (App(name="app"),)


@pytest.mark.parametrize(
    "value",
    ["1815-12-10", "07:32:00", "nan", "-inf", "[1, [nan]]", "{ x = 1815-12-10 }", "1" * 100, "[" * 14 + "]" * 14],
)
@pytest.mark.parametrize("table", ["custom", "device_posture"])
def test_an_error_of_a_claim_names_the_key_and_the_entry(path: Path, table: str, value: str) -> None:
    text = f"[[people]]\nemail = 'a@b'\n[people.{table}]\nplace = 'London'\nborn = {value}\n"
    assert problem_of(path, text).startswith(f"access.toml, line 5, people[1].{table}.born (a@b): must be a JSON value")


def test_a_byte_order_mark_is_no_part_of_the_first_key(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert config_file.load_config(path).team.name == "acme"


def test_a_line_in_a_text_of_many_lines_is_not_taken_for_a_key(path: Path) -> None:
    text = (
        "[team]\nname = \"\"\"\n[[apps]]\nname = 'x'\nhost = 'Y'\n\"\"\"\n\n# host\n[[apps]]\nname = 'x'\nhost = 'Y'\n"
    )
    custom = text.replace("[team]\nname", "[[people]]\nemail = 'a@b'\ncustom.x", 1)
    assert problem_of(path, custom).startswith("access.toml, line 12, apps[1].host (x): ")


def test_a_statement_of_very_many_lines_has_no_line(path: Path) -> None:
    text = "apps = [\n" + "\n" * 300 + "{ name = 5 } ]\n"
    assert problem_of(path, text) == "access.toml, apps[1].name: must be a text in quotes"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ('name = "a\\u001b[31m"', "must not contain control characters"),
        ("name = 'a'\ncors_origins = ['https://a.test/']", "must be an origin as browsers send it"),
        ("name = 'a'\ncors_origins = ['https://a.test:443']", "must be an origin as browsers send it"),
        ("name = 'a'\ncors_origins = ['https://A.test']", "must be an origin as browsers send it"),
        ("name = 'a'\ncors_origins = ['*']\ncors_credentials = true", "cors_credentials needs names"),
        ("name = 'a'\ncors_origins = ['http://a.test']\nbypass_options = true", "cors_origins has no effect"),
        ("name = 'a'\ncors_methods = ['GET, PUT']", "must be a name without blanks"),
    ],
)
def test_an_app_rejects_values_that_could_not_work(path: Path, entry: str, problem: str) -> None:
    assert problem in problem_of(path, f"[[apps]]\n{entry}\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[[people]]\nemail = 'a@b'\ncountry = 'de'", "country code of two capital letters"),
        ("[[service_tokens]]\nname = 'a'\nclient_id = 'A'", "32 hexadecimal digits in lower case and '.access'"),
    ],
)
def test_an_error_says_what_a_code_looks_like(path: Path, text: str, problem: str) -> None:
    assert problem in problem_of(path, text)


def test_a_missing_file_is_reported(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        config_file.load_config(path)
