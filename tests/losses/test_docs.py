"""The examples of docs/losses.md are true, and it names every loss."""

from __future__ import annotations

import doctest
from pathlib import Path

from nucleate import losses

PAGE = Path(__file__).parents[2] / "docs" / "losses.md"


def test_every_example_of_the_page_runs() -> None:
    text = PAGE.read_text(encoding="utf-8").replace("```python\n", "").replace("```\n", "\n")
    example = doctest.DocTestParser().get_doctest(text, {}, "losses.md", str(PAGE), 0)
    assert len(example.examples) > 20
    found: list[str] = []
    runner = doctest.DocTestRunner()
    runner.run(example, out=found.append)
    assert not found, "".join(found)


def test_every_loss_is_in_the_table_of_its_family() -> None:
    rows = dict(
        line.strip("| ").split(" | ") for line in PAGE.read_text(encoding="utf-8").splitlines() if "| `" in line
    )
    for entry in losses.catalogue():
        assert f"`{entry.name}`" in rows[entry.kind]
