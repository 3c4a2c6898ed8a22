"""Every error of turbotool."""

from __future__ import annotations

import inspect

from turbotool import errors
from turbotool.errors import TurbotoolError


def error_classes() -> list[type[TurbotoolError]]:
    """In the order of their exit codes."""
    found = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, TurbotoolError)]
    return sorted((error for error in found if error is not TurbotoolError), key=lambda error: error.exit_code)
