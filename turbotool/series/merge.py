"""One patch on top of a commit: exactly as written, or merged 3-way from the blobs that its index lines name.

`git am --3way` tries the lines first and may find them at another place than the one that the patch was written for; a
merge from the patch's own blobs cannot. So lines decide only where every file still is what the patch expects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from turbotool.series.patchfile import FileDiff, Hunk, Patch
from turbotool.system.git import Git

AM = (
    "am",
    "--quiet",
    "--keep",  # subjects are exported as they are, so they are read as they are
    "--keep-cr",  # a patch may touch a file with CRLF ends
    "--no-scissors",  # a message may contain a line that looks like scissors
    "--no-message-id",
    "--no-signoff",
    "--no-gpg-sign",
    "--committer-date-is-author-date",  # commit ids depend on the patches only
)
MARKERS = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")
CLEAN, MERGED, UPSTREAM, CONFLICT, ABSENT = "clean", "merged", "upstream", "conflict", "absent"


@dataclass(frozen=True)
class Clash:
    """Where upstream and a hunk changed the same lines: `line` (from 1) in upstream's file now, what the patch expects
    to find there, and what upstream has instead.
    """

    line: int
    expected: tuple[str, ...]
    found: tuple[str, ...]


# Path and first old line of each hunk that a merge of this hunk alone cannot place, and where it clashes. None when
# there was nothing to merge from: a blob is unknown, or the patch does not fit the blobs that it names.
Failing = Mapping[tuple[str, int], tuple[Clash, ...]] | None


@dataclass(frozen=True)
class MergeOutcome:
    """How a patch fared: clean (all its lines stand as it has them), merged, upstream, absent or conflict."""

    state: str
    detail: str = ""
    failing: Failing = None


def apply_patch(scratch: Git, patch: Patch) -> MergeOutcome:
    """Commit the patch on HEAD. After a conflict HEAD is as before and the work tree holds git's conflict markers."""
    before = scratch.text("rev-parse", "HEAD")
    if is_exact(scratch, patch):
        if scratch.run(*AM, patch.path, check=False).returncode == 0:
            return MergeOutcome(CLEAN)
        scratch.run("am", "--abort", check=False)
    pair = _pair(scratch, patch, None)
    if pair is None:
        return _by_lines(scratch, patch, before)
    fits = scratch.run("apply", "--check", "--index", patch.path, check=False).returncode == 0
    if not _pick(scratch, pair):
        failing = dict(_failing(scratch, patch, before))
        _pick(scratch, pair)  # leave the markers to whoever repairs it
        _drop_gone(scratch)
        return MergeOutcome(CONFLICT, failing=failing)
    return _commit_merge(scratch, patch, CLEAN if fits else MERGED)


def _commit_merge(scratch: Git, patch: Patch, state: str) -> MergeOutcome:
    if scratch.run("diff", "--cached", "--quiet", "HEAD", check=False).returncode == 0:
        return MergeOutcome(UPSTREAM, "nothing of its change is left to do")
    commit(scratch, patch)
    return MergeOutcome(state)


def commit(scratch: Git, patch: Patch) -> None:
    """Commit what is staged with the message of the patch."""
    message = f"{patch.subject}\n\n{patch.body}\n"
    scratch.run("commit", "--quiet", "--no-verify", "--cleanup=whitespace", "--file=-", stdin=message)


def reset(scratch: Git, to: str = "HEAD") -> None:
    """Throw away everything on top of `to`, files that it does not have included."""
    scratch.run("reset", "--quiet", "--hard", to)
    scratch.run("clean", "--quiet", "-ffdx")


def is_exact(scratch: Git, patch: Patch) -> bool:
    """True if each file is, in HEAD, the very blob that the patch was written for."""
    return _blobs(scratch, patch) == [file.blob for file in patch.files]


def _blobs(scratch: Git, patch: Patch) -> list[str]:
    paths = [file.path for file in patch.files]
    lines = (line.split("\t", 1) for line in scratch.names("--literal-pathspecs", "ls-tree", "-rz", "HEAD", *paths))
    there = {name: about.split()[2] for about, name in lines}
    return [there.get(file.path, "0" * 40 if file.created else "") for file in patch.files]


def _by_lines(scratch: Git, patch: Patch, before: str) -> MergeOutcome:
    """What is left without blobs: the lines as they stand, near or far from where the patch has them."""
    apply = ("apply", "--check", "--index")
    if scratch.run(*apply, patch.path, check=False).returncode != 0:
        if scratch.run(*apply, "--reverse", patch.path, check=False).returncode == 0:
            return MergeOutcome(UPSTREAM, "its whole change is there already")
        return MergeOutcome(CONFLICT, "git does not know the files that it was written for")
    if scratch.run(*AM, patch.path, check=False).returncode == 0:
        return MergeOutcome(CLEAN, "placed by its lines: git does not know the files that it was written for")
    scratch.run("am", "--abort", check=False)
    reset(scratch, before)
    return MergeOutcome(CONFLICT)


def assume_repaired(scratch: Git, patch: Patch) -> None:
    """After a conflict: commit the patch with its own lines wherever it clashes, so that later patches can be tried."""
    reset(scratch)
    pair = _pair(scratch, patch, None)
    if pair is None or _pick(scratch, pair, "-Xtheirs"):
        pass
    else:  # no lines to choose from: a file that is gone stays gone
        there = set(scratch.files("HEAD"))
        for path in scratch.names("diff", "--name-only", "--diff-filter=U", "-z"):
            scratch.run(*(("checkout", "--force", "HEAD", "--") if path in there else ("rm", "-q", "--cached")), path)
    if scratch.run("diff", "--cached", "--quiet", "HEAD", check=False).returncode != 0:
        commit(scratch, patch)
    reset(scratch)


def _pick(scratch: Git, pair: str, *options: str) -> bool:
    """Stage the change of a commit on top of HEAD. False if it conflicts."""
    words = ("-c", "merge.conflictStyle=diff3", "cherry-pick", "--no-commit", "--allow-empty", *options)
    return scratch.run(*words, pair, check=False).returncode == 0


def _drop_gone(scratch: Git) -> None:
    """Remove the files that only the patch knows: git leaves them there, and they would be committed as new ones."""
    there = set(scratch.files("HEAD"))
    for path in scratch.names("diff", "--name-only", "--diff-filter=U", "-z"):
        if path not in there:
            (scratch.folder / path).unlink(missing_ok=True)


def _failing(scratch: Git, patch: Patch, before: str) -> Iterator[tuple[tuple[str, int], tuple[Clash, ...]]]:
    """Try each hunk of the files that git could not merge on its own; the state after the whole pick is given up."""
    unmerged = set(scratch.names("diff", "--name-only", "--diff-filter=U", "-z"))
    there = dict(zip(patch.files, _blobs(scratch, patch), strict=True))
    for file in patch.files:
        for hunk in file.hunks if file.path in unmerged or not there[file] else ():
            reset(scratch, before)
            pair = _pair(scratch, patch, (file, hunk))
            if pair is None or not _pick(scratch, pair):
                yield (file.path, hunk.start), tuple(_clashes(scratch.folder / file.path))
    reset(scratch, before)


def _clashes(path: Path) -> Iterator[Clash]:
    """What stands between git's conflict markers."""
    if not path.is_file():
        return
    lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    sides: dict[str, list[str]] = {}
    side, now = "", 0
    for line in lines:
        if line.startswith(MARKERS) and (line[:7] == MARKERS[0] or side):
            side = line[:7]
            if side == MARKERS[0]:
                sides, first = {marker: [] for marker in MARKERS}, now + 1
            elif side == MARKERS[3]:
                yield Clash(first, tuple(sides[MARKERS[1]]), tuple(sides[MARKERS[0]]))
                side = ""
        elif side:
            sides[side].append(line.rstrip("\r"))
        now += line[:7] not in MARKERS and side in ("", MARKERS[0])


def _pair(scratch: Git, patch: Patch, only: tuple[FileDiff, Hunk] | None) -> str | None:
    """A commit that holds the files as the patch leaves them, on a parent that holds them as it expects them.

    With `only` it is the change of that hunk alone. None when a blob is unknown or does not fit.
    """
    folder = Path(scratch.text("rev-parse", "--absolute-git-dir"))
    diff, index = folder / "pair.patch", {"GIT_INDEX_FILE": str(folder / "pair.index")}
    diff.write_bytes(single(*only) if only else patch.path.read_bytes())
    scratch.run("read-tree", "--empty", env=index)
    files = [only[0]] if only else list(patch.files)
    known = _index_info(scratch, files)
    if known is None:
        return None
    scratch.run("update-index", "-z", "--index-info", stdin=known, env=index)
    base = scratch.text("commit-tree", scratch.text("write-tree", env=index), stdin="expected\n")
    if scratch.run("apply", "--cached", diff, check=False, env=index).returncode != 0:
        return None
    return scratch.text("commit-tree", "-p", base, scratch.text("write-tree", env=index), stdin="patched\n")


def _index_info(scratch: Git, files: Sequence[FileDiff]) -> str | None:
    lines = (line.split("\t", 1) for line in scratch.names("ls-tree", "-rz", "HEAD"))
    modes = {name: about.split()[0] for about, name in lines}
    known = []
    for file in files:
        if file.created:
            continue
        blob = scratch.resolve(f"{file.blob}^{{blob}}") if file.blob else None
        if blob is None:
            return None
        known.append(f"{file.mode or modes.get(file.path, '100644')} {blob}\t{file.path}\0")
    return "".join(known)


def single(file: FileDiff, hunk: Hunk) -> bytes:
    """A diff with this one hunk, placed by its old line: where others would have moved it does not matter then."""
    new = hunk.start if hunk.before else hunk.start + 1
    first = f"@@ -{hunk.start},{len(hunk.before)} +{new},{len(hunk.after)} @@"
    return f"{file.header}{first}\n{hunk.text}".encode("utf-8", "surrogateescape")


def leftovers(folder: Path, paths: Sequence[str]) -> list[str]:
    """`path:line` of each conflict marker that is left in these files."""
    found = []
    for path in paths:
        if (folder / path).is_file():
            lines = (folder / path).read_bytes().split(b"\n")
            found += [f"{path}:{at}" for at, line in enumerate(lines, 1) if line.startswith((b"<<<<<<< ", b">>>>>>> "))]
    return found
