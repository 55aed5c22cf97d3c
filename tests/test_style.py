"""The style of sentences: first words of docstrings, words that are never used, and the width of code on the pages."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.sources

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / ".github").rglob("*.md"))]
GENERATORS = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "scripts").glob("*.py")])

MAX_COLUMNS = 84
"""Width of a code block that a page shows without a scroll bar."""

NOT_A_VERB = re.compile(
    r"(?:Give|Tell|Say|Take|Let|Have|Be)s?\b"
    r"|(?:A|An|The|This|What|Where|When|Which|Who|Whom|How|Why|Whether|Nothing|Each|Every|All|It|If|As|Once|Only|From)\b"
    r"|[A-Z][a-z]+(?<![su])s\b"
)
"""First words of a function's docstring that are not a standard verb in the imperative."""
NOT_A_NOUN = re.compile(r"(?:What|Where|When|Which|Who|Whom|How|From when|For how|Give|Tell|Say|Take|Let)\b")
"""First words of a docstring of a class, a module, a property or an attribute that are not a noun phrase."""

PRONOUNS = "whom|whoever|whomever|nobody|somebody|everybody|anybody"
METAPHORS = "face|door|house|room|rooms|rim|arrow|arrows|life|errand|wish|crowd"
PHRASES = "stands twice|stand twice|will not do|(?<!in )(?<!in-)flight"
FORBIDDEN = re.compile(rf"(?<![\w-])(?:{PRONOUNS}|{METAPHORS}|{PHRASES})(?![\w-])", re.IGNORECASE)

DIGITS = re.compile(r"[0-9a-fA-F]{1,6}")
"""Words that a trace, a digest or an ID contains by chance; an `@` after a name makes it one that none contains."""


def of_path(path: Path) -> str:
    return str(path.relative_to(ROOT))


def docstrings(path: Path) -> Iterator[tuple[bool, str]]:
    """Yield each docstring, and whether it is of a function that is called."""
    for node in ast.walk(ast.parse(path.read_text())):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                text = statement.value.value
                if isinstance(text, str):
                    yield isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_value(node), text


def is_value(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Check whether users read this function as an attribute, or pytest calls it as a fixture."""
    return any(re.search(r"property|fixture", ast.unparse(decorator)) for decorator in function.decorator_list)


def code_blocks(page: str) -> Iterator[str]:
    for block in re.findall(r"^( *)```[^\n]*\n(.*?)^\1```", page, re.MULTILINE | re.DOTALL):
        yield block[1]


@pytest.mark.parametrize("path", SOURCES, ids=of_path)
def test_the_docstring_of_a_function_begins_with_a_standard_verb(path: Path) -> None:
    assert [text for is_function, text in docstrings(path) if is_function and NOT_A_VERB.match(text)] == []


@pytest.mark.parametrize("path", SOURCES, ids=of_path)
def test_every_other_docstring_begins_with_a_noun_phrase(path: Path) -> None:
    assert [text for is_function, text in docstrings(path) if not is_function and NOT_A_NOUN.match(text)] == []


@pytest.mark.parametrize("path", [*SOURCES, *PAGES, *GENERATORS], ids=of_path)
def test_no_sentence_has_a_metaphor_or_a_pronoun_for_an_actor(path: Path) -> None:
    lines = enumerate(path.read_text().splitlines(), 1)
    assert [f"{number}: {line.strip()}" for number, line in lines if FORBIDDEN.search(line)] == []


def test_no_name_of_a_test_has_a_metaphor_or_a_pronoun_for_an_actor() -> None:
    names = [
        node.name
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert [name for name in names if re.search(rf"_(?:{PRONOUNS}|crowds?|errand|wish)(?:_|$)", name)] == []


def test_no_test_looks_for_a_short_word_that_a_random_digest_can_contain() -> None:
    words = [
        f"{of_path(path)}:{node.lineno}: {node.left.value!r}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn)
        if isinstance(node.left, ast.Constant) and isinstance(node.left.value, str | bytes)
        if DIGITS.fullmatch(node.left.value if isinstance(node.left.value, str) else node.left.value.decode("latin-1"))
    ]
    assert words == []


@pytest.mark.parametrize("path", PAGES, ids=of_path)
def test_no_line_of_code_on_a_page_is_wider_than_84_columns(path: Path) -> None:
    lines = [line for block in code_blocks(path.read_text()) for line in block.splitlines()]
    assert [line for line in lines if len(line) > MAX_COLUMNS] == []


@pytest.mark.parametrize(
    "first",
    ["Give the key.", "Tell whether", "Lets every client in.", "The key.", "What it is", "Returns the key.", "Whether"],
)
def test_the_rule_for_functions_notices(first: str) -> None:
    assert NOT_A_VERB.match(first)


@pytest.mark.parametrize(
    "first", ["Return the key.", "Process it.", "Focus", "Express", "Yield each", "Raise an error"]
)
def test_the_rule_for_functions_admits(first: str) -> None:
    assert not NOT_A_VERB.match(first)


@pytest.mark.parametrize("sentence", ["Whom it admits", "a crowd of requests", "a member stands twice", "The flight"])
def test_the_forbidden_words_are_noticed(sentence: str) -> None:
    assert FORBIDDEN.search(sentence)


@pytest.mark.parametrize(
    "sentence", ["a fetch in flight", "an in-flight fetch", "a lifespan", "the interface", "prime"]
)
def test_similar_words_are_admitted(sentence: str) -> None:
    assert not FORBIDDEN.search(sentence)
