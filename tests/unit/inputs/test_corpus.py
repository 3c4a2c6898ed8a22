"""The default text is prose and nothing else, the same on every run; a text of the user's is checked."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turbotool.errors import CorpusError
from turbotool.inputs.corpus import SHORTEST_PROSE, default_corpus, named_corpus, prose

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

A paragraph between tags is prose, whatever a browser hides of it.

</details>

> [!NOTE]
> A note in a quotation is prose like any other and stays here.

- A list item that is a sentence of its own stays as well, `code` and all.
<!-- a comment that nobody sees, long enough to be a paragraph -->
"""


def test_only_prose_remains() -> None:
    assert prose(PAGE).split("\n\n") == [
        f"{SENTENCE} See the guide or .",
        "A paragraph between tags is prose, whatever a browser hides of it.",
        "A note in a quotation is prose like any other and stays here.",
        "A list item that is a sentence of its own stays as well, code and all.",
    ]


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("AT&amp;T, &lt;b&gt; and &#65; {}", "AT&T, <b> and A {}"),
        ("`a &amp; b <c>` {}", "a &amp; b <c> {}"),
        ("**bold** _and_ ~~gone~~ snake_case_name 2 * 3 * 4 {}", "bold and gone snake_case_name 2 * 3 * 4 {}"),
        (
            "see (https://a.example/b) [text](u 'title') [by name][1] {}\n\n[1]: https://b.example",
            "see () text by name {}",
        ),
        ("<https://a.example> <me@a.example> {}", "{}"),
        ("![picture with words](p.png) before<br>after<!-- hidden --> {}", "before after {}"),
        ("two\nlines\\\nof one  \nparagraph {}", "two lines of one paragraph {}"),
        ("- [x] done: {}", "done: {}"),
        ("> [!WARNING]\n> {}", "{}"),
        ("1. one\n\n   {}\n", "{}"),
        ("   {}", "{}"),
        ("Setext {}\n===", ""),
        ("| {} |\n| - |\n| {} |", ""),
        ("x {} | y\n--- | ---\n{} | z", ""),
        ("<pre>\n{}\n</pre>", ""),
        ("    {}", ""),
        ("~~~\n{}\n\n```\n{}\n~~~", ""),
        ("> ```\n> {}\n> ```", ""),
        ("[a]: https://a.example '{}'", ""),
    ],
)
def test_markdown_becomes_plain_text(markdown: str, expected: str) -> None:
    assert prose(markdown.replace("{}", SENTENCE)) == expected.replace("{}", SENTENCE)


def test_a_fence_that_is_never_closed_swallows_the_rest() -> None:
    assert prose(f"{SENTENCE}\n\n```\n{SENTENCE}\n\n{SENTENCE}") == SENTENCE


@settings(deadline=None)  # the machine may be busy
@given(st.one_of(st.text(), st.text("`~|-*_[]()<>!#&;:\\\n\t =+1.ab\"'/\r\0", max_size=400)))
def test_any_text_gives_paragraphs_of_plain_lines(markdown: str) -> None:
    found = prose(markdown)
    for paragraph in found.split("\n\n") if found else []:
        assert paragraph == " ".join(paragraph.split())
        assert len(paragraph) >= SHORTEST_PROSE


WORDS = st.lists(st.sampled_from(["cache", "value", "block", "scale", "token"]), min_size=9, max_size=30).map(" ".join)
KEPT = ("{}", "> {}", "- {}", "1. {}", "<div>\n\n{}\n\n</div>")
LEFT_OUT = (
    *("```\n{}\n```", "~~~ sh\n{}\n\n{}\n~~~", "```\n| {} |\n|---|\n```", "| {} |\n|---|\n| {} |", "<!-- {}\n\n{} -->"),
    *("## {}", "{}\n---", "<table><td>{}</table>", "![{}](a.png)", "<style>\n{}\n\n{}\n</style>", "- ```\n  {}\n  ```"),
)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(st.sampled_from((*KEPT, *LEFT_OUT)), WORDS)))
def test_no_fence_table_heading_or_html_gets_into_the_text(blocks: list[tuple[str, str]]) -> None:
    markdown = "\n\n".join(form.replace("{}", words) for form, words in blocks)
    assert prose(markdown) == "\n\n".join(words for form, words in blocks if form in KEPT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "markdown",
    [
        *("> " * 20_000, "- " * 20_000, "[" * 50_000, "![" * 20_000, "*" * 40_000 + "a" + "*" * 40_000, "_a*" * 20_000),
        *(
            "[a](" * 20_000,
            "<!--" * 20_000,
            "a|b\n-|-\n" + "a|b\n" * 10_000,
            "a|" * 99 + "\n" + "-|" * 99 + "\n" + "a\n" * 9999,
        ),
        *("https://" * 20_000, "&" * 50_000, "\\" * 50_000, "`" * 50_000, "".join(f"{'`' * n} " for n in range(300))),
    ],
    ids=lambda text: ascii(text[:8]),
)
def test_hostile_markdown_takes_bounded_time(markdown: str) -> None:
    started = time.monotonic()
    assert SENTENCE in prose(f"{SENTENCE}\n\n{markdown}\n\n{SENTENCE}")
    assert time.monotonic() - started < 20  # a second or two; what grows with the square of the length takes minutes


def test_what_is_nested_too_deep_is_left_out_instead_of_exhausting_the_stack() -> None:
    assert prose("> " * 5 + SENTENCE) == SENTENCE
    assert prose("> " * 5000 + SENTENCE) == ""


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
