"""Libraries that only some commands need: looked for before the work begins, with the command that installs them."""

from __future__ import annotations

import importlib.util
import sys

from turbotool.errors import ToolMissing
from turbotool.system.process import display


def require_library(requirement: str, extra: str, needed: str, otherwise: str = "", *, module: str = "") -> None:
    """Raise ToolMissing unless the library is installed; `otherwise` says what to do without it.

    `requirement` is as pip takes it, `extra` that of turbotool which brings it, `needed` the start of the message,
    `module` what Python imports where that has another name.
    """
    name = requirement.partition(">=")[0]
    if importlib.util.find_spec(module or name) is None:
        install = display([sys.executable, "-m", "pip", "install", requirement])
        raise ToolMissing(
            f"{needed} {name}, which is not installed",
            hint=f"{install} (the extra turbotool[{extra}]){otherwise}",
        )
