"""What a patch is about: the paths of upstream that its `Needs:` trailers name, and whether an upstream has them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from turbotool.errors import SeriesError
from turbotool.layout import Layout
from turbotool.series.patchfile import Patch
from turbotool.system.git import Git


def paths(tree: Git, revision: str) -> frozenset[str]:
    """Every file and every folder of a commit."""
    return frozenset(tree.names("ls-tree", "-r", "-t", "-z", "--name-only", revision))


def missing(patch: Patch, there: Collection[str]) -> tuple[str, ...]:
    """The paths that the patch needs and that are not `there`: it is about something that does not exist there."""
    return tuple(path for path in patch.needs if path not in there)


def lacks(missed: Sequence[str]) -> str:
    """What upstream lacks, in words."""
    return f"upstream has no {', no '.join(missed)}"


def require(layout: Layout, patches: Sequence[Patch], there: Collection[str]) -> None:
    """Raise SeriesError if a patch is about something that the pinned upstream does not have."""
    for patch in patches:
        if missed := missing(patch, there):
            raise SeriesError(
                f"{patch.name} is about something that the pinned upstream does not have: {lacks(missed)}",
                hint=f"correct its message, or take it out of {layout.series}",
            )
