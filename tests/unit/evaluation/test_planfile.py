"""Plans: what is refused and how it is said, and that those that are shipped measure what was published."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import typed
from eval_site import EvalSite
from fake_eval import eval_programs, eval_runs

from turbotool.errors import ModelError, PlanError
from turbotool.evaluation import planfile
from turbotool.evaluation.planfile import KEYS, EvalPlan, override, read_plan, shipped
from turbotool.kv.cachetype import MAX_TOKENS, CachePair
from turbotool.kv.calibration import AUTO, UNCALIBRATED, Calibration

WHOLE = {"kv": '["q8_0", "q8_0/turbo4"]', "rotation": '["off", "v"]', "ctx": "512", "chunks": "4"}
PUBLISHED = {  # name -> caches, rotations, chunks
    "per-side-matrix": (["q8_0", "q8_0/turbo4", "turbo4"], ["off", "k", "v", "kv"], 32),
    "seven-families": (["q8_0/turbo4"], ["off", "k", "v", "kv"], 32),
    "headline-trio": (["q8_0/turbo4"], ["off", "v", "kv"], 256),
    "noise-floor": (["f16"], ["off"], 32),
    "cross-corpus": (["q8_0/turbo4", "q8_0"], ["off"], 32),
}
needs_fakes = pytest.mark.skipif(os.name == "nt", reason="the fake programs are scripts")


def written(folder: Path, **changes: str | None) -> Path:
    """A plan file: a whole one with some keys set otherwise; None takes a key out."""
    keys = {key: value for key, value in {**WHOLE, **changes}.items() if value is not None}
    path = folder / "mine.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in keys.items()), encoding="utf-8")
    return path


def test_a_plan_is_read_in_full_and_its_files_are_relative_to_it(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        models='["a.gguf", "/b.gguf", "a.gguf"]',
        corpora='["t/x.txt"]',
        max_kld="1",
        about='"why"',
        calibration='["off", "k.gguf", "auto", "off"]',
    )
    found = read_plan(str(path))
    assert found == EvalPlan(
        kv=(CachePair("q8_0", "q8_0"), CachePair("q8_0", "turbo4")),
        rotation=("off", "v"),
        ctx=512,
        chunks=4,
        name="mine.toml",
        about="why",
        models=(tmp_path / "a.gguf", Path("/b.gguf")),
        corpora=(tmp_path / "t" / "x.txt",),
        max_kld=1.0,
        calibration=(UNCALIBRATED, Calibration("k.gguf", tmp_path / "k.gguf"), AUTO),
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"chunk": "3"}, "unknown key 'chunk'; did you mean 'chunks'?\n  keys are about, models, corpora, kv,"),
        ({"kv": None}, "kv is missing; it is a list of cache types"),
        ({"kv": '["turbo5"]'}, "kv: 'turbo5' is not allowed; use a list of cache types"),
        ({"kv": '"q8_0"'}, "kv: 'q8_0' is not allowed; use a list of cache types, or of two with a slash"),
        ({"kv": "[]"}, "kv: [] is not allowed"),
        ({"rotation": '["both"]'}, "rotation: 'both' is not allowed; use a list of rotated sides: off, k, v, kv"),
        ({"rotation": "[[]]"}, "rotation: [] is not allowed"),
        ({"calibration": '[""]'}, "calibration: '' is not allowed; use a list of off, auto, and files"),
        ({"calibration": '["x/auto"]'}, "calibration: 'x/auto' is not allowed"),
        ({"ctx": "8"}, "ctx: 8 is not allowed; use a whole number from 16 to 16777216"),
        ({"ctx": "true"}, "ctx: True is not allowed"),
        ({"chunks": "4.0"}, "chunks: 4.0 is not allowed; use a whole number from 1"),
        ({"max_kld": "nan"}, "max_kld: nan is not allowed; use a number, 0 or more"),
        ({"max_kld": "inf"}, "max_kld: inf is not allowed; use a number, 0 or more"),
        ({"min_same_top": "101"}, "min_same_top: 101 is not allowed; use a number from 0 to 100"),
        ({"serve_ctx": "0"}, "serve_ctx: 0 is not allowed"),
        ({"models": '[""]'}, "models: '' is not allowed; use a list of file names"),
        ({"about": "1"}, "about: 1 is not allowed"),
        ({"until_resolved": '"yes"'}, "until_resolved: 'yes' is not allowed; use true or false"),
        ({"equal_kld": "101"}, "equal_kld: 101 is not allowed; use a number from 0 to 100"),
        ({"models": '["a.gguf"]', "min_models": "2"}, "models: 1 named, but min_models is 2"),
        ({"corpora": '["a"]', "min_corpora": "3"}, "corpora: 1 named, but min_corpora is 3"),
    ],
)
def test_a_mistake_is_told_with_its_key_and_what_is_allowed(
    tmp_path: Path, changes: dict[str, str | None], says: str
) -> None:
    with pytest.raises(PlanError) as caught:
        read_plan(str(written(tmp_path, **changes)))
    assert says in caught.value.message
    assert str(tmp_path / "mine.toml") in caught.value.message


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        read_plan(str(written(tmp_path, kv='["q9"]', ctx=None, typo="1")))
    assert all(word in caught.value.message for word in ("'typo'", "'q9'", "ctx is missing"))


def test_what_is_no_difference_and_how_long_to_go_on_may_stand_in_a_plan(tmp_path: Path) -> None:
    plan = read_plan(str(written(tmp_path, until_resolved="true", equal_kld="2", equal_top="0.5")))
    assert (plan.until_resolved, plan.equal_kld, plan.equal_ppl, plan.equal_top) == (True, 2, 1, 0.5)
    assert not read_plan(str(written(tmp_path))).until_resolved


@pytest.mark.parametrize("text", [b"kv = [", b"\xff", b"kv = 1\nkv = 2\n"])
def test_what_is_not_toml_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "mine.toml").write_bytes(text)
    with pytest.raises(PlanError, match="is not TOML"):
        read_plan(str(tmp_path / "mine.toml"))


def test_a_missing_file_and_an_unknown_name_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot read the plan"):
        read_plan(str(tmp_path / "nowhere"))
    with pytest.raises(PlanError, match="did you mean 'noise-floor'") as caught:
        read_plan("noisefloor")
    assert "per-side-matrix" in str(caught.value.hint)


def test_the_published_experiments_are_shipped() -> None:
    found = {plan.name: ([pair.short for pair in plan.kv], list(plan.rotation), plan.chunks) for plan in shipped()}
    assert found == PUBLISHED
    for plan in shipped():
        assert (plan.ctx, plan.models, plan.corpora) == (512, (), ())
        assert plan.about
        assert plan.calibration == (AUTO if plan.name == "noise-floor" else UNCALIBRATED,)
        assert read_plan(plan.name) == plan
    assert (read_plan("seven-families").min_models, read_plan("cross-corpus").min_corpora) == (2, 2)


def test_what_is_typed_replaces_what_the_plan_says_and_is_told(tmp_path: Path) -> None:
    plan = read_plan(str(written(tmp_path)))
    asked = EvalPlan((CachePair("turbo4", "turbo4"),), ("off",), 64, 4, max_kld=0.5, serve_ctx=100)
    changed, told = override(plan, asked, ["kv", "chunks", "max_kld", "serve_ctx"])
    assert changed == EvalPlan(asked.kv, plan.rotation, 512, 4, "mine.toml", max_kld=0.5, serve_ctx=100)
    assert told == [
        "--kv turbo4 instead of q8_0,q8_0/turbo4, which the plan mine.toml says",
        "--max-kld 0.5 instead of 0.02, which the plan mine.toml says",
        "--serve-ctx 100 instead of the default, which the plan mine.toml says",
    ]


def test_plans_are_listed_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    done = typed(["eval", "--list-plans", "--json"], capsys)
    assert (done.code, [plan["name"] for plan in done.document["plans"]]) == (0, sorted(PUBLISHED))
    assert all(Path(plan["path"]).is_file() for plan in done.document["plans"])
    assert "noise-floor: f16 against itself" in done.stderr


def test_every_key_is_a_field_of_a_plan() -> None:
    assert set(KEYS) | {"name"} == set(EvalPlan.__dataclass_fields__)


@needs_fakes
def test_a_plan_is_measured_with_what_is_typed_beside_it(site: EvalSite) -> None:
    pytest.importorskip("scipy")
    path = written(site.folder, max_kld="0.012", min_same_top="90")
    done = site.eval("--plan", path, "--rotation", "off", "--json")
    assert done.code == 0
    assert [(cell["v"], cell["rotation"], cell["chunks"]) for cell in done.document["cells"]] == [
        ("q8_0", "off", 4),
        ("turbo4", "off", 4),
    ]
    assert done.document["plan"] == "mine.toml"
    assert "--rotation off instead of off,v, which the plan mine.toml says" in done.stderr
    assert not [word for word in ("--chunks", "--models", "--corpora") if word in done.stderr]
    assert done.document["command"].endswith(
        "--kv q8_0,q8_0/turbo4 --calibration auto --rotation off --ctx 512 --chunks 4 --max-kld 0.012 "
        "--min-same-top 90 --bin-dir BIN_DIR"
    )
    assert done.document["recommendation"]["max_kld"] == 0.012


@needs_fakes
def test_a_plan_may_name_model_and_text_and_nothing_else_does_then(site: EvalSite) -> None:
    path = written(site.folder, models='["model.gguf"]', corpora='["text.txt"]', rotation='["off"]', kv='["q8_0"]')
    words = ["eval", "--plan", str(path), "--bin-dir", str(site.folder / "bin"), "--json"]
    for contradiction, what in (([str(site.folder / "other.gguf")], "MODEL"), (["--corpus", "x"], "--corpus FILE")):
        done = typed([*words, *contradiction], site.capsys)
        assert (done.code, eval_runs(site.folder)) == (2, [])
        assert f"of its own: leave out {what}, or take them out there" in done.stderr
    done = typed(words, site.capsys)
    assert (done.code, len(done.document["cells"])) == (0, 1)
    (site.folder / "model.gguf").unlink()
    assert typed(words, site.capsys).code == ModelError.exit_code


@needs_fakes
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("seven-families", "needs 2 models or more: name each with MODEL"),
        ("cross-corpus", "needs 2 corpora or more: name each with --corpus FILE"),
    ],
)
def test_a_plan_of_several_is_not_run_on_one(site: EvalSite, name: str, says: str) -> None:
    done = site.eval(site.folder / "model.gguf", "--plan", name)  # the same model twice is one
    assert (done.code, eval_runs(site.folder)) == (2, [])
    assert says in done.stderr


@needs_fakes
def test_a_plan_with_a_mistake_is_refused_before_anything_is_measured(site: EvalSite) -> None:
    done = site.eval("--plan", written(site.folder, ctx="1"), "--json")
    assert (done.code, eval_runs(site.folder)) == (PlanError.exit_code, [])
    assert done.document["error"]["class"] == "PlanError"


@needs_fakes
def test_the_noise_floor_recommends_nothing(site: EvalSite) -> None:
    eval_programs(site.folder / "bin")
    done = site.eval("--plan", "noise-floor", "--chunks", "4", "--json")
    assert done.document["controls"]["noise_floor"][0]["ok"]
    assert done.document["recommendation"]["reason"] == "nothing smaller was asked for"


def test_the_bounds_of_options_are_those_of_plans(tmp_path: Path) -> None:
    written_ctx = written(tmp_path, ctx=str(planfile.SMALLEST_CTX), chunks=str(MAX_TOKENS))
    assert read_plan(str(written_ctx)).chunks == MAX_TOKENS
