"""Cards on which xformers answers the probe and diffusers' own check does not: no such card is needed to see that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import nn

from diffii import attention
from diffii.backbone import Backbone
from diffii.errors import ModelError
from tests.diffii.stable_diffusion import SMALL, build


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("model") / "model", SMALL)


@pytest.fixture
def a_card_of_tomorrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """xformers has a kernel for float16 and, asked by diffusers, none for float32."""

    def refuse(layer: Attention, wanted: bool, *more: Any) -> None:
        if wanted:
            raise NotImplementedError("No operator found for `memory_efficient_attention_forward`\nwith inputs: ...")
        cast(Any, layer).set_processor(AttnProcessor2_0())

    monkeypatch.setattr(Attention, "set_use_memory_efficient_attention_xformers", refuse)
    monkeypatch.setattr(attention, "choose", lambda *asked: ("xformers", "answered the probe"))
    yield


@pytest.mark.usefixtures("a_card_of_tomorrow")
def test_auto_goes_on_without_it_and_says_why(model: Path) -> None:
    backbone = Backbone.load(str(model), attention="auto")
    assert backbone.record.attention == "sdpa"
    assert "diffusers does not take it: NotImplementedError: No operator found" in backbone.record.attention_reason
    assert "\n" not in backbone.record.attention_reason
    layers = [layer for layer in backbone.pipeline.unet.modules() if isinstance(layer, Attention)]
    assert layers and all(isinstance(layer.processor, AttnProcessor2_0) for layer in layers)
    out = backbone.epsilon(torch.zeros(1, *backbone.latent_shape), 10, 0.5, backbone.prompts(["a bird"]))
    assert out.isfinite().all()


@pytest.mark.usefixtures("a_card_of_tomorrow")
def test_who_demands_it_is_told(model: Path) -> None:
    with pytest.raises(
        ModelError, match=r"backbone\.attention: xformers does not work on this GPU .*NotImplementedError"
    ):
        Backbone.load(str(model), attention="xformers")


def test_an_error_without_words_is_named_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import SimpleNamespace

    def silent(*_: Any) -> None:
        raise NotImplementedError

    modules = {"xformers": nn.Module(), "xformers.ops": SimpleNamespace(memory_efficient_attention=silent)}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    assert attention.probe_xformers(torch.device("cpu"), torch.float32) == "NotImplementedError"
