"""One release of what ci/package.py made: `python ci/publish.py v0.1.0` checks dist/, writes sums and notes, publishes.

The attestation of all that was made, dist/attestation.json, is put beside each archive, and `turbotool fetch` must take
every one. `--dry-run` writes SHA256SUMS and notes.md and stops. Publishing needs GitHub's `gh` with GH_TOKEN.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matrix import Target, read_targets
from package import bill_name
from tool import run, turbotool

from turbotool import __version__
from turbotool.fetch.run import ATTESTATION
from turbotool.fetch.signer import REPOSITORY as OURS
from turbotool.layout import Layout, find_layout
from turbotool.pin.reference import REPOSITORY
from turbotool.series import files as series
from turbotool.series.patchfile import Patch
from turbotool.system.digest import sha256_file
from turbotool.upstream.lock import Upstream, read_lock

DIST = Path("dist")
TAG = re.compile(r"v\d+\.\d+\.\d+(?:[.-]?[a-z]+\d*)?")
MIB = 1 << 20


def collect(dist: Path, targets: Sequence[Target]) -> list[dict[str, Any]]:
    """What was made for each target, in the matrix's order. Raises SystemExit if a file is not there or not it."""
    made = []
    for target in targets:
        record = dist / f"{target.name}.json"
        if not record.is_file():
            raise SystemExit(f"{record} is missing: python ci/package.py {target.name}")
        facts = json.loads(record.read_text(encoding="utf-8"))
        for one in (facts, facts["wheel"]):
            got = sha256_file(dist / one["archive"])
            if got != one["sha256"]:
                raise SystemExit(f"{one['archive']} has sha256 {got}, its record says {one['sha256']}")
        made.append(facts)
    return made


def every(made: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Archives, then wheels."""
    return [*made, *(one["wheel"] for one in made)]


def notes(layout: Layout, made: Sequence[dict[str, Any]]) -> str:
    """Release notes in Markdown, from the lock, the series, and the archives that were made."""
    lock = read_lock(layout)
    up = lock.upstream
    dated = f" of {up.date}" if up.date else ""
    lines = [
        f"llama.cpp {link(up)}{dated} with {len(lock.series.patches)} patches, tree `{lock.series.tree}`,",
        f"built by turbotool {__version__}. Each archive was unpacked and proven with a real model first.",
        "",
        "| archive | MiB | checks passed | sha256 |",
        "|---|---:|---:|---|",
    ]
    lines += [f"| {one['archive']} | {one['bytes'] / MIB:.1f} | {one['passed']} | `{one['sha256']}` |" for one in made]
    lines += ["", "| wheel for llama-cpp-python | MiB | sha256 |", "|---|---:|---|"]
    wheels = [one["wheel"] for one in made]
    lines += [f"| {one['archive']} | {one['bytes'] / MIB:.1f} | `{one['sha256']}` |" for one in wheels]
    lines += [
        "",
        "`turbotool fetch ADDRESS` of an archive checks who built it from which commit, and proves its programs here.",
        "By hand, as for a wheel: `gh attestation verify FILE --repo OWNER/NAME`,",
        "`sha256sum --check --ignore-missing SHA256SUMS`.",
        "",
        "## Patches",
        "",
    ]
    for patch in series.load(layout):
        lines.append(f"- **{patch.subject}** ({patch.reason or 'no reason'}; drop when: {_drop_when(patch)})")
    return "\n".join(lines) + "\n"


def link(upstream: Upstream) -> str:
    """Upstream as it is known, with its address where it has one: git's id of files alone has none."""
    if upstream.known_as == upstream.tree:
        return f"tree `{upstream.short}`"
    kind = "tree" if upstream.tag else "commit"  # of a tag it is the page of its files
    return f"[`{upstream.short}`]({REPOSITORY}/{kind}/{upstream.known_as})"


def _drop_when(patch: Patch) -> str:
    return patch.trailers.get("Drop-when", "not said").rstrip(".")


def sums(made: Sequence[dict[str, Any]]) -> str:
    """A file for `sha256sum --check`."""
    listed = sorted(every(made), key=lambda one: str(one["archive"]))
    return "".join(f"{one['sha256']}  {one['archive']}\n" for one in listed)


def attest(dist: Path, made: Sequence[dict[str, Any]], tag: str) -> list[Path]:
    """Put the attestation beside each archive and check each as a user does. Returns what goes with the archives.

    Raises SystemExit if one is not taken, or is attested for another tag.
    """
    signed = dist / "attestation.json"
    if not signed.is_file():
        raise SystemExit(f"{signed} is missing: the job that attests writes it")
    beside = []
    for one in made:
        beside += [dist / f"{one['archive']}{ATTESTATION}", dist / bill_name(one["archive"])]
        shutil.copy(signed, beside[-2])
        repository = os.environ.get("GITHUB_REPOSITORY", OURS)
        taken = turbotool("fetch", dist / one["archive"], "--no-verify", "--repository", repository)
        if (taken["tag"], taken["sha256"]) != (tag, one["sha256"]):
            raise SystemExit(f"{one['archive']} is attested for {taken['tag']}, sha256 {taken['sha256']}")
    return beside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tag", help="such as v0.1.0")
    parser.add_argument("--dry-run", action="store_true", help="write sums and notes, publish nothing")
    given = parser.parse_args()
    if given.tag != f"v{__version__}" or not TAG.fullmatch(given.tag):
        raise SystemExit(f"the tag is {given.tag}, turbotool's version is {__version__}: they must agree")
    made = collect(DIST, list(read_targets().values()))
    (DIST / "SHA256SUMS").write_text(sums(made), encoding="utf-8")
    (DIST / "notes.md").write_text(notes(find_layout(), made), encoding="utf-8")
    if not given.dry_run:
        more = attest(DIST, made, given.tag)
        files = [DIST / "SHA256SUMS", *(DIST / one["archive"] for one in every(made)), *more]
        words = ["gh", "release", "create", given.tag, "--verify-tag", "--title", f"turbotool {given.tag}"]
        run([*words, "--notes-file", DIST / "notes.md", *files])


if __name__ == "__main__":
    main()
