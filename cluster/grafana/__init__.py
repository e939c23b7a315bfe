"""A dashboard of a cluster's runs for Grafana: `diffii.json`, to be imported as it is."""

from __future__ import annotations

from importlib.resources import files

NAME = "diffii.json"


def dashboard() -> str:
    """The dashboard as Grafana imports it; a test holds its queries to the metrics that there are."""
    return (files(__name__) / NAME).read_text(encoding="utf-8")
