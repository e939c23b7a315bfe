"""Errors that a user can mend. Everything else that is raised is a bug of ours."""

from __future__ import annotations


class DiffiiError(Exception):
    """One clear sentence: what is wrong, with the file or key named, and how to mend it."""


class ConfigError(DiffiiError):
    """A setting is unknown, out of its range, or contradicts another."""


class SourceError(DiffiiError):
    """The labelled images cannot be read as a data set."""


class ModelError(DiffiiError):
    """The Stable Diffusion model cannot be found, loaded, or run with the settings asked for."""


class OutputError(DiffiiError):
    """The output holds something else, was made with other settings, or is damaged."""


class FencedError(DiffiiError):
    """Another driver wrote the next log entry first: this one must stop."""


class ClusterError(DiffiiError):
    """The cluster cannot be reached, refuses, or does not have what is needed."""
