"""Why a data set is not reproducible, in words: in what those differ who computed its rows (law 5).

A fingerprint is the text that `actors.model.fingerprint` and the generator make:
`NVIDIA L4 float16 xformers concepts-1a2b torch-2.11.0 ... batch-16 embedder-lite0`.
"""

from __future__ import annotations

from collections.abc import Collection

_DTYPES = frozenset({"float16", "bfloat16", "float32"})
_WORDS = {
    "device": "by different kinds of device",
    "batch": "in different micro-batches",
    "dtype": "in different arithmetic",
    "kernels": "with different kernels",
    "threads": "with different numbers of CPU threads",
    "concepts": "with different concepts",
    "embedder": "beside different models for near-copies",
}
"""Aspect -> how chunks were made; every other aspect is a package, of which the versions differ."""


def why_not(fingerprints: Collection[str]) -> str:
    """One sentence when rows were computed in more than one way; empty when one fingerprint is all there is."""
    if len(fingerprints) <= 1:
        return ""
    seen: dict[str, list[str]] = {}
    parts = [_parts(text) for text in sorted(fingerprints)]
    for aspect in dict.fromkeys(aspect for part in parts for aspect in part):
        seen[aspect] = list(dict.fromkeys(part.get(aspect, "none") for part in parts))
    told = [_said(aspect, values) for aspect, values in seen.items() if len(values) > 1]
    return f"chunks were made {'; '.join(told)}. Each row is there once; made again elsewhere, its last bits may differ"


def _said(aspect: str, values: list[str]) -> str:
    order = sorted(values, key=lambda value: (not value.isdigit(), int(value) if value.isdigit() else 0, value))
    listed = f"{', '.join(order[:-1])} and {order[-1]}"
    if aspect == "batch":
        listed += " rows"
    return f"{_WORDS.get(aspect, f'with different versions of {aspect}')} ({listed})"


def _parts(fingerprint: str) -> dict[str, str]:
    """Aspect -> value. A device's name may have spaces in it; the arithmetic is the first word after it."""
    words = fingerprint.split(" ")
    at = next((number for number, word in enumerate(words) if word in _DTYPES), len(words))
    parts = {"device": " ".join(words[:at])}
    if at < len(words):
        parts["dtype"] = words[at]
    kernels: list[str] = []
    for number, word in enumerate(words[at + 1 :]):
        name, _, value = word.partition("-")
        # The attention kernel comes first and has no name before it.
        if number and value:
            parts[name] = value
        else:
            kernels.append(word)
    return {**parts, "kernels": " ".join(kernels)} if kernels else parts
