"""A new patch from what is edited in the vendored tree: one commit with every trailer, then export."""

from __future__ import annotations

from dataclasses import dataclass

from turbotool.errors import SeriesError, TurbotoolError
from turbotool.layout import Layout
from turbotool.series import files as series
from turbotool.series.export import Exported, export
from turbotool.series.patchfile import slug
from turbotool.system.git import BASE_REF, Git
from turbotool.system.locks import work_lock
from turbotool.system.session import Session
from turbotool.upstream import journal

OPEN = "TODO"  # what `patch lint` refuses until somebody has written it


@dataclass(frozen=True)
class Message:
    """What a patch says about itself; what is not known yet is to be written with `git commit --amend`."""

    subject: str
    why: str = OPEN
    reason: str = "feature"
    upstream: str = "none"
    drop_when: str = OPEN
    needs: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        return OPEN not in (self.why, self.drop_when)

    def text(self) -> str:
        trailers = f"Reason: {self.reason}\nUpstream: {self.upstream}\nDrop-when: {self.drop_when}"
        trailers += "".join(f"\nNeeds: {path}" for path in self.needs)
        return f"{self.subject}\n\n{self.why}\n\n{trailers}\n"


def subject_of(name: str) -> str:
    """`fix-k-shift` or `fix-k-shift.patch` as a subject; anything with a space is one already."""
    plain = name.strip().removesuffix(".patch")
    words = plain if " " in plain else plain.replace("-", " ")
    return words[:1].upper() + words[1:]


def new_patch(session: Session, message: Message) -> tuple[str, Exported]:
    """Commit every edit in the vendored tree as the last patch and export; returns its name.

    The edits survive a failure. Raises SeriesError when there is nothing to commit, no file of upstream is edited, or
    the name is taken.
    """
    with work_lock(session, "make a patch") as held:
        journal.recover(held)
        tree = Git(held.layout.tree, held.keep)
        if not (held.layout.tree / ".git").is_dir() or tree.resolve(BASE_REF) is None:
            raise SeriesError(f"nothing is vendored at {held.layout.tree}", hint="turbotool patch apply")
        name = f"{slug(message.subject)}.patch"
        if name in series.names(held.layout):
            raise SeriesError(f"{held.layout.series} lists {name} already", hint="choose another name")
        _check_edits(held.layout, tree)
        tree.run("add", "--all")
        tree.run("commit", "--quiet", "--no-verify", "--cleanup=whitespace", "--file=-", stdin=message.text())
        try:
            return name, export(held)
        except TurbotoolError:
            tree.run("reset", "--quiet", "--mixed", "HEAD^")
            raise


def _check_edits(layout: Layout, tree: Git) -> None:
    edited = {line[3:] for line in tree.status()}
    if not edited:
        raise SeriesError(f"nothing is edited in {layout.tree}", hint="edit files there first")
    if not edited & set(tree.files(BASE_REF)):
        raise SeriesError(
            f"no file of upstream is edited in {layout.tree}, so that there is nothing for a patch",
            hint=f"files of our own: git -C {layout.tree} commit, then turbotool patch export",
        )
