"""Try the series on upstream's newest tag, compare the pin with upstream, and file what happened.

`python ci/rehearse.py try`, then `file`.

`try` writes build/rehearsal.md and build/rehearsal.json and needs no rights; `file` needs GitHub's `gh` with GH_TOKEN.
One open issue with the label holds the last report: it is rewritten each time.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tool import run, turbotool

from turbotool.errors import PatchConflict, SourceError, UpstreamDiffers
from turbotool.pin.reference import REPOSITORY

REPORT = Path("build", "rehearsal.md")
RESULT = Path("build", "rehearsal.json")
LABEL = "rehearsal"
TAG = re.compile(r"\trefs/tags/(b\d+)$", re.MULTILINE)
LONGEST = 60_000  # characters; GitHub takes 65,536


def newest_tag(listing: str) -> str:
    """The highest build tag in what `git ls-remote --tags` prints. Raises SystemExit if there is none."""
    tags = TAG.findall(listing)
    if not tags:
        raise SystemExit("upstream has no tag of the form b1234")
    return str(max(tags, key=lambda tag: int(tag[1:])))


def rehearse(address: str) -> None:
    """Rehearse on the newest tag of the repository at `address`, and compare the pin with it.

    A conflict, a file that differs and a comparison that could not be made are results, no failures.
    """
    tag = newest_tag(run(["git", "ls-remote", "--tags", "--refs", "--", address, "b*"]))
    REPORT.parent.mkdir(exist_ok=True)
    words: list[str | Path] = ["patch", "rehearse", "--onto", f"{address}@{tag}", "--report", REPORT]
    document = turbotool(*words, accept=(0, PatchConflict.exit_code))
    known = (0, SourceError.exit_code, UpstreamDiffers.exit_code)
    origin = turbotool("vendor", "check", "--url", address, accept=known)
    with REPORT.open("a", encoding="utf-8") as report:
        report.write(beside(origin))
    RESULT.write_text(json.dumps({"title": title(tag, document, origin)}), encoding="utf-8")


def title(tag: str, document: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    """The issue's title: on which tag, and whether somebody has to act."""
    found = [
        f"{len(document[what])} {words}"
        for what, words in (("conflicts", "in conflict"), ("droppable", "to drop"), ("absent", "left out"))
        if document[what]
    ]
    pin = "" if origin["ok"] else "; the pin is NOT upstream's" if origin["checked"] else "; the pin was NOT CHECKED"
    return f"The series on upstream {tag}: {', '.join(found) or 'fits'}{pin}"


def beside(origin: Mapping[str, Any]) -> str:
    """The section of the report on the pinned files beside upstream's own."""
    lines = ["", "## The pin beside upstream itself", ""]
    if not origin["checked"]:
        return "\n".join([*lines, f"`{origin['known_as']}` was NOT CHECKED: {origin['reason']}", ""])
    counts = ", ".join(f"{len(origin[what])} {what}" for what in ("altered", "foreign", "lacking"))
    lines += [
        f"`{origin['known_as']}` is commit `{origin['commit']}`: {origin['identical']} files identical, {counts}."
    ]
    wrong = [file["path"] for file in origin["altered"]] + origin["foreign"]
    return "\n".join([*lines, "", *(f"- **not upstream's**: `{path}`" for path in wrong), ""])


def file() -> None:
    """Write the report into the open issue with the label, or a new one."""
    text = REPORT.read_text(encoding="utf-8")
    if len(text) > LONGEST:
        REPORT.write_text(f"{text[:LONGEST]}\n\n(cut off here)\n", encoding="utf-8")
    name = str(json.loads(RESULT.read_text(encoding="utf-8"))["title"])
    run(["gh", "label", "create", LABEL, "--force", "--description", "The series tried on upstream's newest tag"])
    found = json.loads(run(["gh", "issue", "list", "--label", LABEL, "--state", "open", "--json", "number"]))
    what = ["edit", str(found[0]["number"])] if found else ["create", "--label", LABEL]
    run(["gh", "issue", *what, "--title", name, "--body-file", REPORT])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("try", "file"))
    parser.add_argument("--address", default=REPOSITORY, help="upstream's repository")
    given = parser.parse_args()
    if given.step == "try":
        rehearse(given.address)
    else:
        file()


if __name__ == "__main__":
    main()
