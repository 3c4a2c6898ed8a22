"""A verification as JUnit XML, which CI systems read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from turbotool.system.files import out_of_space
from turbotool.verify.check import Check

NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document(checks: Sequence[Check], properties: Mapping[str, str]) -> str:
    """The XML text: one test case a check, its value and bound in the output, its detail in the failure."""
    failures = sum(not check.ok and not check.skipped for check in checks)
    skipped = sum(check.skipped for check in checks)
    seconds = f"{sum(check.seconds for check in checks):.2f}"
    counts = {
        "tests": str(len(checks)),
        "failures": str(failures),
        "errors": "0",
        "skipped": str(skipped),
        "time": seconds,
    }
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": "turbotool verify", **counts})
    listed = ElementTree.SubElement(suite, "properties")
    for name, value in properties.items():
        ElementTree.SubElement(listed, "property", {"name": name, "value": _clean(value)})
    for check in checks:
        _case(suite, check)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, check: Check) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        {"classname": "turbotool.verify", "name": check.name, "time": f"{check.seconds:.2f}"},
    )
    if check.skipped:
        ElementTree.SubElement(case, "skipped", {"message": _clean(check.detail)})
    elif not check.ok:
        failure = ElementTree.SubElement(
            case, "failure", {"message": _clean(f"{check.value} is not inside {check.bound}")}
        )
        failure.text = _clean(check.detail)
    ElementTree.SubElement(case, "system-out").text = _clean(
        f"value: {check.value}\nbound: {check.bound}\n{check.detail}\n{check.left_out}".rstrip()
    )


def _clean(text: str) -> str:
    """Characters that XML 1.0 cannot hold (a crashed program may print any) become question marks."""
    return NOT_XML.sub("?", text)


def write_report(path: Path, checks: Sequence[Check], properties: Mapping[str, str]) -> None:
    """Write the report. Raises NoSpace or the OSError of an unwritable path."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document(checks, properties), encoding="utf-8")
    except OSError as error:
        raise out_of_space(error, path) from error
