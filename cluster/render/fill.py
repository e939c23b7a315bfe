"""Texts with gaps (`templates/`): what is no YAML is rendered from these."""

from __future__ import annotations

import jinja2


def fill(template: str, **values: object) -> str:
    """The text of a template. A value that it names and is not given is an error of ours."""
    loader = jinja2.PackageLoader("cluster.render", "templates")
    environment = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
