"""Fenced git: neither the user's configuration, nor hooks, nor inherited variables change what a command gives."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from turbotool.errors import NoSpace, ToolFailed
from turbotool.system import process
from turbotool.system.process import Completed

NAME = "turbotool contributors"
EMAIL = "turbotool@users.noreply.github.com"
# One date for every commit that we make ourselves, so that commit ids depend on content only.
DATE = "2026-01-01T00:00:00+00:00"
BASE_REF = "refs/turbotool/base"
APPLIED_REFS = "refs/turbotool/applied"
PREVIOUS_REF = "refs/turbotool/previous"
# Settings that decide about bytes. They beat every configuration file through the environment, and are also written to
# the vendored repository, so that plain git commands typed there give the same result.
SETTINGS = {
    "am.keepcr": "true",  # a patch may touch a file with CRLF ends
    "am.threeWay": "true",
    "apply.ignoreWhitespace": "no",
    "apply.whitespace": "nowarn",  # `fix` would alter what the patch says
    "commit.gpgSign": "false",
    "core.attributesFile": os.devnull,
    "core.autocrlf": "false",
    "core.excludesFile": os.devnull,  # what counts as untracked must not depend on a person's global ignore list
    "core.fileMode": "true",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.quotePath": "false",
    "core.safecrlf": "false",
    "core.splitIndex": "false",  # `unmerged` reads the index as one file
    "core.symlinks": "true",
    "diff.algorithm": "myers",
    "diff.context": "3",
    "diff.interHunkContext": "0",
    "diff.indentHeuristic": "true",
    "diff.mnemonicPrefix": "false",
    "diff.noPrefix": "false",
    "diff.orderFile": os.devnull,
    "diff.renames": "false",
    "diff.suppressBlankEmpty": "false",
    "format.signOff": "false",
    "gc.auto": "0",  # a detached gc would outlive us and the lock
    "http.sslVerify": "true",
    "index.version": "2",  # which every reader of an index knows
    "maintenance.auto": "false",
    "merge.conflictStyle": "merge",
    "merge.renames": "true",
    "rerere.enabled": "false",
    "tag.gpgSign": "false",
    "user.email": EMAIL,
    "user.name": NAME,
}
# The highest-ranking attributes file: bytes go in and out as they are, whatever a .gitattributes in the tree asks for.
ATTRIBUTES = "* -text !eol -filter -ident !working-tree-encoding !diff !merge !export-subst !whitespace\n"
# Encrypted transports, and folders of this machine. What git asks servers for is otherwise anybody's to answer.
PROTOCOLS = "https:ssh:file"
# Transport settings that a person may need to reach a server; they cannot change what a commit id means.
NETWORK = (
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSH_VARIANT",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_PROXY_COMMAND",
)


def environment(ceiling: Path, *, network: bool = False, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every git call.

    `ceiling` is the folder above which git looks for no repository. With `network` the user's own configuration files
    are read (proxy, credentials, URL rewriting), still below SETTINGS.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    env.update(
        GIT_ALLOW_PROTOCOL=PROTOCOLS,
        GIT_CEILING_DIRECTORIES=str(ceiling),
        GIT_TERMINAL_PROMPT="0",
        GIT_AUTHOR_NAME=NAME,
        GIT_AUTHOR_EMAIL=EMAIL,
        GIT_AUTHOR_DATE=DATE,
        GIT_COMMITTER_NAME=NAME,
        GIT_COMMITTER_EMAIL=EMAIL,
        GIT_COMMITTER_DATE=DATE,
        GIT_CONFIG_COUNT=str(len(SETTINGS)),
        GIT_EDITOR="true",
        LC_ALL="C",
        TZ="UTC",
    )
    for index, (key, value) in enumerate(SETTINGS.items()):
        env[f"GIT_CONFIG_KEY_{index}"] = key
        env[f"GIT_CONFIG_VALUE_{index}"] = value
    if network:
        env.update({key: os.environ[key] for key in NETWORK if key in os.environ})
        for key in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"):
            if key in os.environ:
                env[key] = os.environ[key]
    else:
        env.update(GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_SYSTEM=os.devnull, GIT_CONFIG_NOSYSTEM="1")
    env.update(extra or {})
    return env


@dataclass(frozen=True)
class Git:
    """A git work tree at `folder`.

    `keep` are file descriptors of held locks that children inherit, so that a git which outlives a killed turbotool
    still holds the lock until it ends.
    """

    folder: Path
    keep: tuple[int, ...] = ()

    def run(
        self,
        *words: str | Path,
        check: bool = True,
        network: bool = False,
        stdin: str | None = None,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run one git command in the work tree.

        Raises ToolMissing without git, ToolFailed on a bad exit status when `check`.
        """
        done = process.run(
            ["git", *words],
            cwd=self.folder,
            env=environment(self.folder.parent, network=network, extra=env),
            stdin=stdin,
            log=log,
            check=False,
            keep=self.keep,
        )
        if done.returncode != 0 and os.strerror(errno.ENOSPC) in done.output:
            raise NoSpace(
                f"no space left in {self.folder}", hint="free some space on that disk, then run the command again"
            )
        if check and done.returncode != 0:
            ended = process.describe_exit(done.returncode)
            raise ToolFailed(f"{process.display(done.command)} in {self.folder} ended with {ended}\n{done.tail}")
        return done

    def text(self, *words: str | Path, stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
        """What the command prints, without the last line end."""
        return self.run(*words, stdin=stdin, env=env).output.rstrip("\n")

    def names(self, *words: str | Path, env: Mapping[str, str] | None = None) -> list[str]:
        """The NUL-separated names that a command with -z prints."""
        return [name for name in self.run(*words, env=env).output.split("\0") if name]

    def resolve(self, revision: str) -> str | None:
        """The object id of a revision, or None when there is none."""
        done = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", revision, check=False)
        return done.output.strip() if done.returncode == 0 else None

    def refs(self) -> dict[str, str]:
        """Our own refs and HEAD, each with its commit, read with one command."""
        lines = self.text("show-ref", "--head").splitlines()
        pairs = (line.split(" ", 1) for line in lines)
        return {name: commit for commit, name in pairs if name == "HEAD" or name.startswith("refs/turbotool/")}

    def tree_of(self, revision: str) -> str:
        return self.text("rev-parse", "--verify", f"{revision}^{{tree}}")

    def status(self, env: Mapping[str, str] | None = None) -> list[str]:
        """`XY path` for every edited, staged, missing or untracked (not ignored) file."""
        return self.names("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", env=env)

    def unmerged(self) -> set[str]:
        """Paths of which the index holds both sides: git's text on conflicts changes, its index does not.

        The index is read as a file, so that neither configuration nor variables have a say.
        """
        from git.index.fun import read_cache

        # Relative, because what git prints of a folder whose name is no UTF-8 does not name it any more.
        place = self.text("rev-parse", "--path-format=relative", "--git-path", "index")
        with (self.folder / place).open("rb") as index:
            _, entries, _, _ = read_cache(index)
        return {str(path) for path, stage in entries if stage}

    def files(self, revision: str) -> list[str]:
        return self.names("ls-tree", "-r", "-z", "--name-only", revision)

    def at(self, folder: Path) -> Git:
        """The same fence and locks in another folder."""
        return Git(folder, self.keep)


def init(folder: Path, keep: tuple[int, ...] = ()) -> Git:
    """An empty repository without the user's template (hooks, excludes) and with SETTINGS in its own configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    git = Git(folder, keep)
    git.run("init", "--quiet", "--template=", "--initial-branch=upstream", "--object-format=sha1")
    config = folder / ".git" / "config"
    config.write_text(config.read_text(encoding="utf-8") + _as_config(SETTINGS.items()), encoding="utf-8")
    info = folder / ".git" / "info"
    info.mkdir(exist_ok=True)
    (info / "attributes").write_text(ATTRIBUTES, encoding="utf-8")
    return git


def _as_config(settings: Iterable[tuple[str, str]]) -> str:
    parts = ((*key.split(".", 1), value) for key, value in settings)
    return "".join(f'[{section}]\n\t{name} = "{value}"\n' for section, name, value in parts)
