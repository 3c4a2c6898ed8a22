"""What tests with real binaries start from."""

from __future__ import annotations

from typing import Any

import pytest
from command_line import document

BUILD_SECONDS = 3600


@pytest.fixture(scope="session")
def built() -> dict[str, Any]:
    """What `turbotool build` says of the pinned upstream, for the CPU."""
    return document("build", timeout=BUILD_SECONDS)
