"""The default text is prose and nothing else, the same on every run; a text of the user's is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from turbotool.errors import CorpusError
from turbotool.inputs.corpus import default_corpus, named_corpus, prose

SENTENCE = "Quantization stores each value in fewer bits than training used."

PAGE = f"""# A heading that is not prose at all, however long it may be

[![Build](https://img.shields.io/badge.svg)](https://example.org/ci)

{SENTENCE} See [the **guide**](guide.md) or <https://example.org>.

```bash
cmake -B build && cmake --build build --config Release --target everything
```

    int main(void) {{ return puts("an indented block of code that is long"); }}

| column of a table | another column of the table |
|-------------------|-----------------------------|
| a cell with quite some text inside | and one more of them |

<details><summary>More</summary>

A hidden paragraph which is long enough to be counted as prose.

</details>

> [!NOTE]
> A note in a quotation is prose like any other and stays here.

- A list item that is a sentence of its own stays as well, `code` and all.
<!-- a comment that nobody sees, long enough to be a paragraph -->
"""


def test_only_prose_remains() -> None:
    assert prose(PAGE).split("\n\n") == [
        f"{SENTENCE} See the guide or .",
        "A note in a quotation is prose like any other and stays here.",
        "A list item that is a sentence of its own stays as well, code and all.",
    ]


def test_a_fence_that_is_never_closed_swallows_the_rest() -> None:
    assert prose(f"{SENTENCE}\n\n```\n{SENTENCE}\n\n{SENTENCE}") == SENTENCE


def tree(folder: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "\n\n".join(f"{SENTENCE} This is number {number}, {line}." for line in range(60)), encoding="utf-8"
        )
    return folder


def test_the_corpus_does_not_depend_on_the_order_in_which_files_were_written(tmp_path: Path) -> None:
    names = ["README.md", "docs/build.md", "docs/backend/CUDA.md", "tools/cli/README.md"]
    one = default_corpus(tree(tmp_path / "one", names), tmp_path / "work")
    numbered = dict(enumerate(names))
    other_tree = tmp_path / "other"
    for number in reversed(numbered):
        source = tmp_path / "one" / numbered[number]
        target = other_tree / numbered[number]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    assert default_corpus(other_tree, tmp_path / "work") == one
    assert one.read_text(encoding="utf-8").index("number 0") < one.read_text(encoding="utf-8").index("number 2")


def test_a_tree_without_documentation_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(CorpusError) as caught:
        default_corpus(tmp_path, tmp_path / "work")
    assert caught.value.message.startswith("there is no llama.cpp in")
    assert "turbotool vendor" in (caught.value.hint or "")


def test_a_text_that_is_not_utf8_names_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"caf\xe9 " * 2000)
    with pytest.raises(CorpusError, match="0xe9 at position 3"):
        named_corpus(path)


@pytest.mark.parametrize("content", [None, "too short"])
def test_a_missing_or_short_text_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError):
        named_corpus(path)
