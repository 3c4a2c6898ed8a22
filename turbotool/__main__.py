"""`python -m turbotool` is the `turbotool` script."""

from turbotool.cli.main import run

run()
