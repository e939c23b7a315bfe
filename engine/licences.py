"""Under which licences the parts of a data set stand: as configured, as cards beside them say, or not known."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from diffii.dataset import layout
from diffii.dataset.storage import Storage
from diffii.errors import DiffiiError
from diffii.garments.catalog import CLASSES
from diffii.hub import of_repository
from diffii.model_cache import is_url
from diffii.weights import EMBEDDED_DIR, weights_digest
from engine.defaults import STABLE_DIFFUSION

if TYPE_CHECKING:
    from engine.run import Run

KEY = "licences"
"""Key of a data set card's front matter: part -> licence."""
_KNOWN = {STABLE_DIFFUSION: "CreativeML Open RAIL-M"}
_UNKNOWN = "not known to diffii; it applies to what is derived from them, too"


def of_garments(run: Run) -> bool:
    """Whether a run expands classes of the embedded data set with the embedded model; its photos may be others."""
    return set(run.source.classes) <= set(CLASSES) and run.plan.weights == _embedded_weights()


def licences(run: Run) -> list[tuple[str, str]]:
    """(part, licence). What cannot be known here is said to be so."""
    config, embedded = run.config, of_garments(run)
    model = config.backbone.license or (
        "Apache-2.0; trained on Fashion-MNIST (MIT)" if embedded else _model_licence(config.backbone.model)
    )
    known = "Fashion-MNIST, MIT, if they are those that come with diffii" if embedded else _UNKNOWN
    images = config.source.license or known
    return [("diffii", "Apache-2.0"), (f"Model {config.backbone.model}", model), ("Real images", images)]


def licence_at(url: str) -> str:
    """What a card beside real images says, as data sets of the hub have one; empty where there is none."""
    try:
        return str(front_matter(Storage(url).read_or_none(layout.CARD)).get("license") or "")
    except (DiffiiError, OSError):
        return ""


def stated_licences(card: bytes | None) -> list[tuple[str, str]]:
    """What a data set card of ours says of them: the run that wrote it was told more than the log is."""
    found = front_matter(card).get(KEY)
    return [(str(part), str(licence)) for part, licence in found.items()] if isinstance(found, dict) else []


def front_matter(card: bytes | None) -> dict[str, Any]:
    """The YAML at the top of a card; empty where there is none that can be read."""
    _, _, rest = (card or b"").decode("utf-8", "replace").partition("---\n")
    front, mark, _ = rest.partition("\n---")
    try:
        found = yaml.safe_load(front) if mark else None
    except (yaml.YAMLError, ValueError):
        found = None
    return found if isinstance(found, dict) else {}


@lru_cache(1)
def _embedded_weights() -> str:
    return weights_digest(EMBEDDED_DIR)


def _model_licence(model: str) -> str:
    if is_url(model):
        return licence_at(model) or "see its model card"
    card = Path(model) / layout.CARD
    found = front_matter(card.read_bytes()).get("license") if card.is_file() else None
    return str(found) if found else _KNOWN.get(of_repository(model)[0], "see its model card")
