"""The examples of docs/losses.md are true."""

from __future__ import annotations

import doctest
from pathlib import Path


def test_every_example_of_the_page_runs() -> None:
    page = Path(__file__).parents[2] / "docs" / "losses.md"
    text = page.read_text(encoding="utf-8").replace("```python\n", "").replace("```\n", "\n")
    example = doctest.DocTestParser().get_doctest(text, {}, "losses.md", str(page), 0)
    assert len(example.examples) > 20
    found: list[str] = []
    runner = doctest.DocTestRunner()
    runner.run(example, out=found.append)
    assert not found, "".join(found)
