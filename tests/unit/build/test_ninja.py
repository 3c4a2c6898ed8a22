from __future__ import annotations

import pytest

from turbotool.build.ninja import Step, parse_step, products


@pytest.mark.parametrize(
    ("line", "step"),
    [
        (
            "[12/236] Building CXX object src/CMakeFiles/llama.dir/llama-kv-cache.cpp.o",
            Step(12, 236, "llama-kv-cache.cpp"),
        ),
        ("[236/236] Linking CXX executable bin/llama-cli", Step(236, 236, "llama-cli")),
        ("[1/2] Generating license", Step(1, 2, "Generating license")),
        ("[0/1] Re-running CMake...", Step(0, 1, "Re-running CMake...")),
    ],
)
def test_progress_of_a_status_line(line: str, step: Step) -> None:
    assert parse_step(line) == step


@pytest.mark.parametrize(
    "line", ["", "a.cpp:1: [3/4] not status", "[3]", "[a/b] x", "[5/4] more than all", "ninja: no work"]
)
def test_other_lines_are_no_progress(line: str) -> None:
    assert parse_step(line) is None


def test_products_are_the_names_in_bin() -> None:
    assert products("bin/llama-cli\nbin\\libggml.dll\nsrc/a.o\n../bin/x\n") == {"llama-cli", "libggml.dll"}
