"""One patch file: its message and trailers, and the diff parsed into files and hunks. A patch is untrusted input."""

from __future__ import annotations

import email.parser
import email.policy
import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from turbotool.errors import SeriesError

SIZE_LIMIT = 16 << 20
TRAILERS = ("Reason", "Upstream", "Drop-when")
REASONS = ("feature", "fix", "portability")
HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
NEEDS = "Needs"  # may be there several times, or not at all
TRAILER = re.compile(r"([A-Z][A-Za-z-]*): +(\S.*)")


@dataclass(frozen=True)
class Hunk:
    """`lines` keep their first character: space, minus or plus. `start` is the first line in the old file, from 1.

    `text` is what follows the `@@` line in the patch file, to the byte (with `surrogateescape`).
    """

    start: int
    lines: tuple[str, ...]
    text: str = ""

    @property
    def before(self) -> list[str]:
        return [line[1:] for line in self.lines if line[:1] in (" ", "-")]

    @property
    def after(self) -> list[str]:
        return [line[1:] for line in self.lines if line[:1] in (" ", "+")]


@dataclass(frozen=True)
class FileDiff:
    """What a patch does to one file. `blob` and `mode` are the old content's, as far as the patch tells them.

    `header` are the lines of the patch file before the first hunk.
    """

    path: str
    blob: str
    created: bool
    deleted: bool
    hunks: tuple[Hunk, ...]
    mode: str = ""
    header: str = ""

    def count(self, sign: str) -> int:
        return sum(line.startswith(sign) for hunk in self.hunks for line in hunk.lines)


@dataclass(frozen=True)
class Patch:
    """A patch of the series; `trailers` are those of its message's last paragraph."""

    name: str
    path: Path
    sha256: str
    subject: str
    body: str
    trailers: dict[str, str]
    files: tuple[FileDiff, ...]

    @property
    def reason(self) -> str:
        return self.trailers.get("Reason", "")

    @property
    def needs(self) -> tuple[str, ...]:
        """The paths of upstream that it is about: where one is missing, there is nothing for it to do."""
        return tuple(value for name, value in _trailer_lines(self.body) if name == NEEDS)

    @property
    def added(self) -> int:
        """Lines that it adds."""
        return sum(file.count("+") for file in self.files)

    @property
    def removed(self) -> int:
        """Lines that it removes."""
        return sum(file.count("-") for file in self.files)


def read_patch(path: Path) -> Patch:
    """Parse a patch file in `git format-patch` form. Raises SeriesError naming the file and, where it can, the line."""
    try:
        size = path.stat().st_size
        if size > SIZE_LIMIT:
            raise SeriesError(f"{path} has {size} bytes, more than any patch may have", hint="split it by concern")
        data = path.read_bytes()
    except OSError as error:
        raise SeriesError(f"{path} cannot be read: {error.strerror}", hint="git checkout -- patches") from error
    text = data.decode("utf-8", "surrogateescape")
    head, _, rest = text.partition("\n\n")
    if not head.startswith("From ") or not rest:
        raise malformed(path, 1, "it does not start like `git format-patch` output")
    headers = email.parser.Parser(policy=email.policy.default).parsestr(head.partition("\n")[2], headersonly=True)
    subject = re.sub(r"\s*\n\s*", " ", str(headers.get("Subject", ""))).strip()
    for name in ("From", "Date", "Subject"):
        if not str(headers.get(name, "")).strip():
            raise malformed(path, 1, f"it has no {name}: line")
    lines = text.split("\n")
    first = head.count("\n") + 2
    stop = next(
        (i for i in range(first, len(lines)) if lines[i] == "---" or lines[i].startswith("diff --git ")), len(lines)
    )
    body = "\n".join(lines[first:stop]).strip("\n")
    files = tuple(_files(path, lines, stop))
    if not files:
        raise malformed(path, stop + 1, "it changes no file")
    return Patch(path.name, path, hashlib.sha256(data).hexdigest(), subject, body, trailers(body), files)


def malformed(path: Path, line: int, why: str) -> SeriesError:
    hint = "write it again from the vendored tree: turbotool patch export"
    return SeriesError(f"{path}:{line} is malformed: {why}", hint=hint)


def trailers(body: str) -> dict[str, str]:
    """The `Key: value` lines of a message's last paragraph."""
    return dict(_trailer_lines(body))


def _trailer_lines(body: str) -> list[tuple[str, str]]:
    matches = (TRAILER.fullmatch(line.strip()) for line in _last_paragraph(body).splitlines())
    return [(match[1], match[2].strip()) for match in matches if match]


def _last_paragraph(body: str) -> str:
    return body.strip().rpartition("\n\n")[2]


def trailer_problems(patch: Patch) -> list[str]:
    """What the patch policy misses in the message."""
    missing = [f"its message has no `{name}:` trailer" for name in TRAILERS if name not in patch.trailers]
    if patch.reason and patch.reason not in REASONS:
        missing.append(f"Reason is {patch.reason!r}, not one of {', '.join(REASONS)}")
    missing += [
        f"Needs is {path!r}, which is not one file or folder of upstream such as src/llama.cpp"
        for path in patch.needs
        if not _is_inside(path)
    ]
    said = re.findall(r"(?im)^\s*needs?\s*:.*", _last_paragraph(patch.body)) if NEEDS not in patch.trailers else ()
    return missing + [f"{line.strip()!r} is no trailer: `{NEEDS}: PATH`" for line in said]


def _is_inside(path: str) -> bool:
    plain = PurePosixPath(path)
    usual = str(plain) == path != "." and "\\" not in path
    return usual and not plain.is_absolute() and ".." not in plain.parts


def slug(subject: str) -> str:
    """The file name that a subject gives, without `.patch`: `Fix K-shift (turbo)` -> `fix-k-shift-turbo`."""
    plain = re.sub(r"^\s*(\[[^\]]*\]\s*)+", "", subject)
    ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_only.lower()).strip("-")[:60].rstrip("-") or "patch"


def _files(path: Path, lines: list[str], at: int) -> Iterator[FileDiff]:
    while at < len(lines):
        if not lines[at].startswith("diff --git "):
            at += 1
            continue
        start = at
        at += 1
        names: dict[str, str] = {}
        blob, mode, created, deleted, whole = "", "", False, False, False
        while at < len(lines) and not lines[at].startswith(("diff --git ", "@@ ", "GIT binary patch")):
            line = lines[at]
            created |= line.startswith(("new file mode", "rename to ", "copy to "))
            deleted |= line.startswith("deleted file mode")
            whole |= line.startswith(("new mode", "similarity index"))
            if line.startswith("index "):
                blob = line[6:].partition("..")[0]
            if match := re.fullmatch(r"(?:index \S+|old mode|deleted file mode) (100644|100755)", line):
                mode = match[1]
            if line.startswith(("--- ", "+++ ")):
                names[line[:3]] = unquote(line[4:].rstrip("\t"))
            at += 1
        name = next((names[key][2:] for key in ("---", "+++") if names.get(key, "/dev/null") != "/dev/null"), None)
        header = "".join(f"{line}\n" for line in lines[start:at])
        name = name or _name_of(lines[start])
        if name is None:
            raise malformed(path, start + 1, "the file's name cannot be read")
        hunks: list[Hunk] = []
        while at < len(lines) and (match := HUNK.match(lines[at])):
            hunk, at = _hunk(path, lines, at, match)
            hunks.append(hunk)
        whole |= at < len(lines) and lines[at].startswith("GIT binary patch")
        if not (hunks or created or deleted or whole):
            raise malformed(path, start + 1, f"nothing is said about {name}")
        yield FileDiff(name, blob, created, deleted, tuple(hunks), mode, header)


def _hunk(path: Path, lines: list[str], at: int, match: re.Match[str]) -> tuple[Hunk, int]:
    old, new = int(match[2] or 1), int(match[4] or 1)
    start, first = at, at + 1
    at = first
    while old > 0 or new > 0:
        sign = lines[at][:1] if at < len(lines) else "x"
        if sign not in (" ", "-", "+", "\\", ""):
            raise malformed(path, at + 1, f"the hunk of line {start + 1} ends too early")
        old -= sign in (" ", "-", "")
        new -= sign in (" ", "+", "")
        at += 1
    if old or new:
        raise malformed(path, at, f"the line counts of the hunk of line {start + 1} do not match its content")
    body = tuple(line or " " for line in lines[first:at] if not line.startswith("\\"))
    while at < len(lines) and lines[at].startswith("\\"):
        at += 1
    return Hunk(int(match[1]), body, "".join(f"{line}\n" for line in lines[first:at])), at


def _name_of(line: str) -> str | None:
    """The name in `diff --git a/NAME b/NAME`, when both are the same (mode changes, binary and empty files)."""
    rest = line[len("diff --git ") :]
    if rest.startswith('"'):
        rest = unquote(rest[: len(rest) // 2])
        return rest[2:] or None
    half = (len(rest) - 5) // 2
    name = rest[2 : 2 + half]
    return name if name and rest == f"a/{name} b/{name}" else None


def unquote(name: str) -> str:
    """Undo git's C-style quoting of unusual file names."""
    if not (name.startswith('"') and name.endswith('"')):
        return name
    raw = name[1:-1].encode("utf-8", "surrogateescape").decode("unicode_escape")
    return raw.encode("latin-1", "replace").decode("utf-8", "surrogateescape")
