"""HTML files that need nothing else: no network, no script, readable in light and in dark.

Pages are Jinja templates that extend `templates/page.html.j2`. Values are escaped, except `Markup`, which only
`turbotool.report.svg.inline` makes.
"""

from __future__ import annotations


def render(package: str, name: str, **values: object) -> str:
    """The page that template `name` in the folder `templates` of `package` makes of `values`.

    Raises jinja2.TemplateError for a template that is wrong or asks for a value that is not there.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(__package__)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(values)
