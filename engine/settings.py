"""From files and `--set key=value` to a `Config`: one clear line for what is wrong, naming the nearest valid key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from diffii.errors import ConfigError
from engine.config import Config

KEYS = tuple(Config().flat())
TEXT_KEYS = frozenset(key for key, value in Config().flat().items() if isinstance(value, str))
"""Stay text on the command line, where YAML would make a date of 2024-01-01 and False of `no`."""


def load_config(
    file: Path | None = None,
    sets: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Defaults, then the YAML file, then `--set`, then `overrides` (dotted keys); later wins.

    Raises ConfigError.
    """
    values: dict[str, Any] = dict(defaults or {})
    if file is not None:
        values.update(_read_file(file))
    for item in sets:
        key, equals, text = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item}: write it as key=value")
        values[key.strip()] = _parse(key.strip(), text)
    values.update(overrides or {})
    return from_flat(values)


def from_flat(values: Mapping[str, Any]) -> Config:
    """A Config from dotted keys. Raises ConfigError for an unknown key or a value out of range."""
    nested: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if key not in KEYS:
            raise ConfigError(f"{key} is no configuration key; did you mean {_nearest(key)}?")
        group, _, name = key.partition(".")
        nested.setdefault(group, {})[name] = value
    try:
        return Config.model_validate(nested)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"][:2])
        # A check of several keys of a group names them itself.
        said = f"{key}={first['input']!r}: " if "." in key else ""
        raise ConfigError(f"{said}{_sentence(first['msg'])}") from error


def _nearest(key: str) -> str:
    """The keys of that name in any group, else the one that is written most like it."""
    named = [known for known in KEYS if known.rpartition(".")[2] == key]
    return " or ".join(named or difflib.get_close_matches(key, KEYS, n=1, cutoff=0.0))


def _read_file(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise ConfigError(f"--config {path}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"--config {path} cannot be read: {error.strerror}") from error
    # PyYAML lets a ValueError out for an impossible date, such as 2024-13-45.
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--config {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"--config {path}: must hold keys and values")
    return flat_keys(tree)


def flat_keys(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """The dotted keys of a tree of settings, groups or dotted already; what is no setting stays, to be refused."""
    values: dict[str, Any] = {}
    for group, content in tree.items():
        if "." in str(group):
            values[str(group)] = content
        elif isinstance(content, dict):
            values.update({f"{group}.{key}": value for key, value in content.items()})
        elif content is None and group in Config.model_fields:
            # A group whose keys are all commented out.
            continue
        else:
            values[str(group)] = content
    return values


def _parse(key: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text) if text else ""
        return text if key in TEXT_KEYS and not isinstance(value, str) else value
    except (yaml.YAMLError, ValueError) as error:
        if key in TEXT_KEYS:
            return text
        raise ConfigError(f"--set {key}={text}: not a YAML value: {' '.join(str(error).split())}") from error


def _sentence(message: str) -> str:
    text = message.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]
