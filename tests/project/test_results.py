"""The table of kept results is what their own figures say."""

from __future__ import annotations

import json
import re
from pathlib import Path

from turbotool.evaluation.report.models import kld_table
from turbotool.report.table import markdown_lines

ABSOLUTE = re.compile(r"""(?<![\w./)])(?:/[\w.+-]+){2,}|\b[A-Za-z]:\\""")
RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_the_table_of_results_is_made_of_the_kept_documents() -> None:
    """Whoever adds a result replaces the table by what this test prints."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*/eval.json"))]
    assert documents
    table = markdown_lines(kld_table(documents))
    between = (RESULTS / "README.md").read_text(encoding="utf-8").partition("<!-- models: begin -->\n")[2]
    assert between.partition("\n<!-- models: end -->")[0] == table, table


def test_kept_results_name_no_folder_of_the_machine_that_measured_them() -> None:
    for path in filter(Path.is_file, RESULTS.rglob("*")):
        assert ABSOLUTE.search(path.read_text(encoding="utf-8")) is None
    assert ABSOLUTE.search("-m /opt/models/a.gguf") and ABSOLUTE.search(r'"C:\models"')
