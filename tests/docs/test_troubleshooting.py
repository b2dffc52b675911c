"""The sentences that docs/troubleshooting.md quotes are those of the code, up to what differs ("...")."""

import ast
import re
from functools import cache

import pytest

from support.paths import PROJECT

PAGE = (PROJECT / "docs" / "troubleshooting.md").read_text()
QUOTED = re.findall(r'^\| "(.*?)":? \|', PAGE, re.MULTILINE)


@cache
def constants() -> str:
    """Return every text of the library's sources, one a line; in an f-string, what stands between its fields."""
    trees = [ast.parse(path.read_text()) for path in (PROJECT / "align_detr").rglob("*.py")]
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return "\n".join(node.value.replace("\n", " ") for node in nodes if isinstance(node.value, str))


@pytest.mark.parametrize("sentence", QUOTED)
def test_a_quoted_sentence_is_in_the_code(sentence: str) -> None:
    for part in re.split(r"\.\.\.", sentence.replace("....", "...")):
        assert part.strip(" .") in constants(), part


def test_the_page_quotes_many() -> None:
    assert len(QUOTED) > 35 and "gibberish that no code has" not in constants()
