"""The documentation as a site: `python ci/pages.py build` makes build/site, `publish` puts it on the branch gh-pages.

`--prepare` beside `build` only installs what that needs. `publish` needs git, and GITHUB_TOKEN with the right to push.
"""

from __future__ import annotations

import argparse
import base64
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tool import run

SITE = Path("build", "site")
BRANCH = "gh-pages"
NAME, EMAIL = "github-actions", "github-actions@users.noreply.github.com"


def prepare() -> None:
    """Install mkdocs."""
    run([sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-e", ".[docs]"])


def build(site: Path = SITE) -> None:
    """Make the site; a link that leads nowhere is an error.

    Without --quiet: that would hide the warnings from --strict, too.
    """
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site], env)


def publish(site: Path, address: str, commit: str, token: str) -> None:
    """Make the site the only commit of its branch in the repository at `address`."""
    (site / ".nojekyll").touch()  # the files are served as they are
    env = environment(address, token)
    git: list[str | Path] = ["git", "-C", site]
    run([*git, "init", "--quiet", "--initial-branch", BRANCH], env)
    run([*git, "add", "--all"], env)
    run([*git, "commit", "--quiet", "--message", f"The site of {commit}"], env)
    run([*git, "push", "--force", "--quiet", "--", address, BRANCH], env)


def environment(address: str, token: str) -> Mapping[str, str]:
    """The environment of git. The token is in it only: neither in a command line nor in a file."""
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    return {
        **os.environ,
        "GIT_AUTHOR_NAME": NAME,
        "GIT_AUTHOR_EMAIL": EMAIL,
        "GIT_COMMITTER_NAME": NAME,
        "GIT_COMMITTER_EMAIL": EMAIL,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{address}.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("build", "publish"))
    parser.add_argument("--prepare", action="store_true", help="only install what building needs")
    given = parser.parse_args()
    if given.step == "publish":
        address = f"{os.environ['GITHUB_SERVER_URL']}/{os.environ['GITHUB_REPOSITORY']}.git"
        publish(SITE, address, os.environ["GITHUB_SHA"], os.environ["GITHUB_TOKEN"])
    elif given.prepare:
        prepare()
    else:
        build()


if __name__ == "__main__":
    main()
