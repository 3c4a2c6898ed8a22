"""How many processes run the tests."""

from __future__ import annotations

import pytest


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Each core runs fast tests when all of them are asked for; a few are sooner done without starting processes.

    Slow tests compile and measure: those run one after the other, unless `-n` says how many.
    """
    whole = config.args == config.getini("testpaths")
    return None if whole and "not slow" in config.option.markexpr else 0
