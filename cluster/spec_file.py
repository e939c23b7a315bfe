"""A specification from its file: what is wrong with it is said in one line that names the field and the mend."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from cluster.run_file import refuse_local
from cluster.spec import Spec
from diffii.errors import ConfigError
from engine.settings import flat_keys, from_flat

_SECRET_NAME = re.compile(r"secret|passw|credential|token|api_?key|access_?key|private_?key", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    r"://[^/@\s]+:[^/@\s]+@|[?&](sig|X-Amz-Signature)=|AKIA[0-9A-Z]{16}|-----BEGIN|\bhf_[A-Za-z0-9]{20}"
)
"""A password or a signature in a URL, a key of AWS, a key file, a token of the hub."""


def load_spec(file: Path) -> Spec:
    """Raises ConfigError, which names the file, the field, and what to write instead."""
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--spec {file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--spec {file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"--spec {file}: must hold keys and values, such as `name: birds`")
    _refuse_secrets(file, tree)
    try:
        spec = Spec.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"--spec {file}: {_told(tuple(str(part) for part in first['loc']), first)}") from error
    _check_run(file, spec)
    return spec


def _check_run(file: Path, spec: Spec) -> None:
    settings = flat_keys(spec.run)
    if "output.url" in settings:
        raise ConfigError(f"--spec {file}: run.output.url is said by `output`; leave it out of `run`")
    try:
        config = from_flat(settings)
    except ConfigError as error:
        raise ConfigError(f"--spec {file}: run: {error}") from error
    if not config.source.url:
        raise ConfigError(f"--spec {file}: run.source.url is missing: the labelled images, which all machines can read")
    refuse_local(config)


def _told(place: tuple[str, ...], error: Mapping[str, Any]) -> str:
    field = ".".join(place)
    if error["type"] == "extra_forbidden":
        return f"{field} is no field of a specification; {_near(place)}"
    if error["type"] == "missing":
        return f"{field} is missing; {_meaning(place)}"
    said = str(error["msg"]).removeprefix("Value error, ")
    # A check of several fields names them itself.
    return f"{field}={error['input']!r}: {said[:1].lower()}{said[1:]}. {_meaning(place)}".rstrip() if field else said


def _kind_at(place: tuple[str, ...]) -> type[BaseModel] | None:
    kind: Any = Spec
    for part in place:
        field = kind.model_fields.get(part)
        inner = [kind for kind in _models(field.annotation) if issubclass(kind, BaseModel)] if field else []
        if not inner:
            return None
        kind = inner[0]
    return kind


def _models(annotation: Any) -> list[type]:
    parts = getattr(annotation, "__args__", (annotation,))
    return [part for part in parts if isinstance(part, type)]


def _near(place: tuple[str, ...]) -> str:
    kind = _kind_at(place[:-1])
    names = list(kind.model_fields) if kind else []
    near = difflib.get_close_matches(place[-1], names, n=1, cutoff=0.0)
    return f"did you mean {'.'.join((*place[:-1], *near))}?"


def _meaning(place: tuple[str, ...]) -> str:
    kind = _kind_at(place[:-1])
    field = kind.model_fields.get(place[-1]) if kind else None
    return " ".join((field.description or "").split()) if field else ""


def _refuse_secrets(file: Path, tree: Mapping[Any, Any], above: str = "") -> None:
    """A secret in a specification would stand in every file rendered of it."""
    for key, value in tree.items():
        field = f"{above}{key}"
        # The run's settings have tokens of another kind, and are checked by themselves.
        named = not field.startswith("run.") and _SECRET_NAME.search(str(key))
        if named or (isinstance(value, str) and _SECRET_VALUE.search(value)):
            raise ConfigError(
                f"--spec {file}: {field} looks like a secret, which belongs in no file; give the machines a role that "
                "has the right, or set it in their environment"
            )
        if isinstance(value, Mapping):
            _refuse_secrets(file, value, f"{field}.")
