from turbotool.cli import run

run()
