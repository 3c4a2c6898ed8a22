"""What the pages say holds: links lead somewhere, command lines are understood, generated pages are up to date."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import architecture
import calibration_picture
import click
import mkdocs_github
import pages
import pytest
import quality_picture
import reference
import svg
from tool import run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NAMED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "patches/README.md")
PAGES = [*(ROOT / name for name in NAMED), *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
READ = re.compile(r"\b(?:environ|env)(?:\.get\(|\[)\"([A-Z_]{2,})\"")
PLACE = re.compile(r"`((?:\.ci|\.github|ci|docs|patches|tests|turbotool|vendor)/[\w./-]*)`")
MADE = ("docs/results/", "vendor/llama.cpp")  # by whoever follows the page
PAST = (ROOT / "CHANGELOG.md", DOCS / "rehearsals.md")  # these name what is not here, or not any more
INTERNAL = {"TURBOTOOL_SHIM"}  # turbotool sets it for a child of its own


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def headings(page: Path) -> set[str]:
    """The addresses of a page's headings, as GitHub forms them."""
    found: list[str] = []
    for title in re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE):
        one = reference.slug(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title))
        times = sum(re.fullmatch(rf"{re.escape(one)}(-\d+)?", other) is not None for other in found)
        found.append(f"{one}-{times}" if times else one)
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in LINK.findall(CODE.sub("", prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, heading = link.partition("#")
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), link
        assert place.is_relative_to(ROOT), link
        assert not heading or heading in headings(place), link


@pytest.mark.parametrize("page", [page for page in PAGES if page not in PAST], ids=name_of)
def test_every_place_in_the_repository_that_is_named_exists(page: Path) -> None:
    named = [place for place in PLACE.findall(page.read_text(encoding="utf-8")) if not place.startswith(MADE)]
    roots = (ROOT, ROOT / "patches" / "overlay")
    assert [place for place in named if not any((root / place).exists() for root in roots)] == []


def test_every_module_in_the_architecture_exists() -> None:
    packages = "|".join(path.name for path in architecture.PACKAGE.iterdir() if (path / "__init__.py").is_file())
    named = re.findall(rf"`((?:{packages})(?:\.\w+)+)`", (DOCS / "architecture.md").read_text(encoding="utf-8"))
    places = {name: architecture.PACKAGE.joinpath(*name.split(".")) for name in named if not name.endswith(".run")}
    assert "series.apply" in places
    assert [name for name, place in places.items() if not (place.is_dir() or place.with_suffix(".py").is_file())] == []


def test_the_generated_pages_are_what_the_code_says() -> None:
    assert reference.stale() == [], "python ci/reference.py"


def test_the_picture_of_a_result_shows_the_kept_figures() -> None:
    assert quality_picture.PICTURE.read_text(encoding="utf-8") == quality_picture.made(), "python ci/quality_picture.py"


def test_the_picture_of_a_calibration_shows_the_kept_moments() -> None:
    picture = calibration_picture.PICTURE
    assert picture.read_text(encoding="utf-8") == calibration_picture.made(), "python ci/calibration_picture.py"


def test_the_picture_of_the_packages_shows_their_imports() -> None:
    assert architecture.PICTURE.read_text(encoding="utf-8") == architecture.made(), "python ci/architecture.py"


def test_the_command_line_page_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = reference.command_line()
    monkeypatch.setenv("COLUMNS", "40")
    assert reference.command_line() == wide


def typed(page: Path) -> Iterator[str]:
    """The command lines of a page: in blocks of sh, and in the text where they begin with turbotool."""
    text = page.read_text(encoding="utf-8")
    for _, language, block in FENCE.findall(text):
        if language == "sh":
            yield from block.replace("\\\n", " ").splitlines()
    yield from (code.strip("`") for code in CODE.findall(FENCE.sub("", text)) if re.match(r"`(\S+/)?turbotool ", code))


def calls(line: str) -> Iterator[list[str]]:
    """The words behind `turbotool` of each call of it in a line of shell."""
    words, punctuation = shlex.split(line, comments=True), {"&&", "||", "|", ";", ">"}
    found: list[list[str]] = [[]]
    for word in words:
        if word in punctuation:
            found.append([])
        else:
            found[-1].append(word)
    for call in found:
        while call and re.match(r"\w+=", call[0]):
            call.pop(0)
        if call and Path(call[0]).name == "turbotool":
            yield call[1:]


def understand(words: list[str], command: click.Command = reference.group, name: str = "turbotool") -> None:
    """Parse the words as click would, and run nothing. Raises click.UsageError."""
    others = getattr(command, "others", {})
    if words and words[0] in others:
        below = {one.words: one.command for one in reference.commands()}
        return understand(words[1:], below[f"{name} {words[0]}"], f"{name} {words[0]}")
    context = reference.Command(name, command).context
    context.allow_interspersed_args = command.allow_interspersed_args
    _, rest, _ = command.make_parser(context).parse_args(words)
    if not isinstance(command, click.Group):
        if rest:
            context.fail(f"too many words: {rest}")
        return None
    if not rest:
        return None
    found = command.get_command(context, rest[0])
    if found is None:
        context.fail(f"no command {rest[0]}")
    return understand(rest[1:], found, f"{name} {rest[0]}")


def mistake(words: list[str]) -> str:
    """What click would say about the words behind `turbotool`; nothing if it would understand them."""
    try:
        understand(words)
    except click.UsageError as error:
        return error.format_message()
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_line_would_be_understood(page: Path) -> None:
    found = [(line, mistake(words)) for line in typed(page) for words in calls(line)]
    assert [(line, told) for line, told in found if told] == []


@pytest.mark.parametrize(
    "line", ["turbotool biuld", "turbotool eval --kvv x", "turbotool patch lst", "turbotool doctor x"]
)
def test_a_mistyped_command_line_is_noticed(line: str) -> None:
    assert mistake(next(calls(f"A=1 true && .venv/bin/{line} # why")))


def test_the_site_has_every_page_once() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"^ +- [^:]+: (\S+)$", nav, re.MULTILINE)
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted(page for page in pages if not re.fullmatch(r"results/[^/]+/eval\.md", page))


def test_every_variable_that_is_read_is_told() -> None:
    page = (DOCS / "reference/environment.md").read_text(encoding="utf-8")
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted(architecture.PACKAGE.rglob("*.py")))
    read = set(READ.findall(code)) | set(re.findall(r"\bTURBOTOOL_[A-Z_]+", code))
    assert {"TURBOTOOL_WORK", "SOURCE_DATE_EPOCH"} <= read
    assert {name for name in read - INTERNAL if f"`{name}`" not in page} == set()


def test_the_site_shows_what_github_shows() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="guides/package.md"))
    config = SimpleNamespace(repo_url="https://r/")
    text = "[a](../../patches/README.md#the-series) [b](speed.md) [c](https://x.org/y) [d](#here) [e](../images/q.svg)"
    row = "| `a\\|b` | c \\| d |"
    assert mkdocs_github.on_page_markdown(f"{text}\n\n{row}\n\n`e\\|f`", page=page, config=config) == (
        text.replace("../../patches/README.md", "https://r/blob/main/patches/README.md")
        + "\n\n| `a|b` | c \\| d |\n\n`e\\|f`"
    )


def test_the_site_becomes_the_only_commit_of_its_branch(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    site, there = tmp_path / "site", tmp_path / "there"
    run(["git", "init", "--quiet", "--bare", there])
    for text in ("old", "new"):
        shutil.rmtree(site, ignore_errors=True)
        site.mkdir()
        (site / f"{text}.html").write_text(text)
        pages.publish(site, str(there), "c0ffee", "a-secret")
    assert run(["git", "-C", there, "ls-tree", "--name-only", pages.BRANCH]).split() == [".nojekyll", "new.html"]
    assert run(["git", "-C", there, "log", "--format=%s", pages.BRANCH]) == "The site of c0ffee\n"
    told = capfd.readouterr().err
    assert "push" in told
    hidden = ("a-secret", pages.environment(str(there), "a-secret")["GIT_CONFIG_VALUE_0"].split()[-1])
    kept = [path.read_text(errors="replace") for path in site.rglob("*") if path.is_file()]
    assert not any(secret in text for secret in hidden for text in (told, *kept))


def package(folder: Path, **imports: str) -> Path:
    """A package `turbotool` in which each package imports what it is given."""
    for name, other in imports.items():
        file = folder / "turbotool" / name / "run.py"
        file.parent.mkdir(parents=True)
        file.write_text(f"def work() -> None:\n    {other}\n")
    return folder / "turbotool"


def test_the_picture_of_the_packages_leaves_out_what_follows(tmp_path: Path) -> None:
    found = architecture.imports(
        package(
            tmp_path,
            cli="from turbotool.pin import run; from turbotool import verify; import turbotool.system.git",
            pin="import turbotool.verify.run",
            verify="from turbotool.system.git import Git",
            system="import os",
        )
    )
    assert found["cli"] == {"pin", "verify", "system"}
    assert architecture.reduced(found) == [("cli", "pin"), ("pin", "verify"), ("verify", "system")]
    assert architecture.draw(found) == architecture.draw({name: found[name] for name in sorted(found, reverse=True)})


@pytest.mark.parametrize(
    ("name", "imported"), [("system", "import turbotool.cli.run"), ("bench", "from turbotool import cli")]
)
def test_the_picture_shows_an_import_that_does_not_go_down(tmp_path: Path, name: str, imported: str) -> None:
    found = architecture.imports(package(tmp_path, cli=f"import turbotool.{name}", **{name: imported}))
    assert architecture.against(found) == [(name, "cli")]
    assert architecture.reduced(found) == [("cli", name)]
    assert architecture.draw(found).count(f'stroke="{svg.RED}"') == 1


def test_a_package_without_a_place_is_not_drawn(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no place in LAYERS of ci/architecture\.py: attic"):
        architecture.draw(architecture.imports(package(tmp_path, cli="pass", attic="pass")))


def test_what_runs_before_a_commit_also_runs_in_ci() -> None:
    entries = re.findall(r"^ +entry: (\S+)", (ROOT / ".pre-commit-config.yaml").read_text(), re.MULTILINE)
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert entries
    assert [entry for entry in entries if not re.search(rf"^{re.escape(entry)}\b", ci, re.MULTILINE)] == []
