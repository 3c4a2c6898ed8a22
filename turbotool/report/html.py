"""HTML files that need nothing else: no network, no script, readable in light and in dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --box: #f6f8fa;
        --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --box: #151b23; --good: #3fb950;
          --bad: #f85149; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
       max-width: 80rem; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.25; } h2 { border-bottom: 1px solid var(--line); margin-top: 2.2rem; }
p.note, figcaption { color: var(--soft); font-size: 14px; }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 6px; overflow-x: auto; padding: .7rem; }
.recommended { background: var(--box); border-left: 4px solid var(--good); padding: .2rem 1rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13.5px; }
th, td { border-bottom: 1px solid var(--line); padding: .25rem .6rem; text-align: left; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } td.number, th.number { font-variant-numeric: tabular-nums;
text-align: right; } td.long { overflow-wrap: anywhere; white-space: normal; }
.better { color: var(--good); } .worse { color: var(--bad); }
figure { margin: 1.2rem 0; } svg { color: var(--soft); height: auto; max-width: 100%; }
.pair { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
"""


def whole(title: str, body: Sequence[str]) -> str:
    """A file with that title and these elements."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    head += f"<style>{STYLE}</style>"
    lines = joined([f"<h1>{escape(title)}</h1>", *body])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{lines}</body></html>\n'


def joined(parts: Iterable[str]) -> str:
    return "".join(f"{part}\n" for part in parts)


def table(lines: Sequence[Sequence[str]], *, numbers: Sequence[int] = (), long: Sequence[int] = ()) -> str:
    """A table whose first line is its heading; verdicts have their colour."""
    head = "".join(_entry("th", text, number in numbers, False) for number, text in enumerate(lines[0]))
    body = "".join(
        f"<tr>{''.join(_entry('td', text, n in numbers, n in long) for n, text in enumerate(line))}</tr>\n"
        for line in lines[1:]
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _entry(tag: str, text: str, number: bool, long: bool) -> str:
    verdict = text.rpartition(" ")[2]
    names = [name for name, on in (("number", number), ("long", long), (verdict, verdict in ("better", "worse"))) if on]
    attribute = f' class="{" ".join(names)}"' if names else ""
    return f"<{tag}{attribute}>{escape(text)}</{tag}>"
