"""TODO turbotool.__main__"""

from __future__ import annotations

from turbotool.cli.main import run

run()
