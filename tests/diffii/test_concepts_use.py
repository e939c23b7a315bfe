"""Concepts in a resident model: swapped without a trace, found in any prompt, never cut off silently, many of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffii.backbone import CACHED_PROMPTS, Backbone
from diffii.concepts.record import Concepts
from diffii.concepts.tokens import TokenTable, known_ids, prompt_ids, start_rows, token
from diffii.denoise import denoise
from diffii.errors import ModelError
from diffii.lora import read_lora
from tests.diffii.stable_diffusion import SMALL, attention_projections, build, write_attn_procs_lora

NAMES = ("plain", "a/b.c", "<c00000-0>", "Jõgeva Ж 中 'x'", "  ", "-")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return build(tmp_path_factory.mktemp("small") / "model", SMALL)


@pytest.fixture(scope="module")
def garments() -> Backbone:
    return Backbone.load("garments", device="cpu")


def concepts(lora: Mapping[str, Tensor], seed: int = 0, names: tuple[str, ...] = NAMES, tokens: int = 1) -> Concepts:
    generator = torch.Generator().manual_seed(seed)
    own = {name: tuple(token(i, k) for k in range(tokens)) for i, name in enumerate(names)}
    return Concepts(own, torch.randn(len(names) * tokens, 32, generator=generator), lora)


def weights(backbone: Backbone) -> dict[str, Tensor]:
    parts = (backbone.pipeline.unet, backbone.pipeline.text_encoder)
    return {f"{i}.{name}": value.clone() for i, part in enumerate(parts) for name, value in part.state_dict().items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def image(backbone: Backbone, prompt: str) -> Tensor:
    x = torch.randn(1, *backbone.latent_shape, generator=torch.Generator().manual_seed(0))
    return denoise(backbone, x, [prompt], [prompt], backbone.grid(2, "matched"), 0.3, 3.0)


@pytest.mark.parametrize("dtype", ["fp32", pytest.param("bf16", marks=pytest.mark.slow), "fp16"])
def test_swapping_leaves_no_trace(model: Path, tmp_path: Path, dtype: str) -> None:
    write_attn_procs_lora(tmp_path / "a", model, seed=1)
    write_attn_procs_lora(tmp_path / "b", model, seed=2)
    a = concepts(read_lora(tmp_path / "a"), 1)
    half = {key: value for key, value in read_lora(tmp_path / "b").items() if "attn2" in key}
    b = concepts(half, 2, NAMES[:2], tokens=2)  # another number of tokens, and fewer modules
    no_lora = concepts({}, 3)
    prompt = f"a photo of a {a.name_of('plain')} bird"

    def fresh(used: Concepts | None) -> tuple[dict[str, Tensor], Tensor]:
        backbone = Backbone.load(str(model), dtype=dtype, device="cpu")  # pyright: ignore[reportArgumentType]
        backbone.use(used)
        return weights(backbone), image(backbone, prompt if used else "a photo")

    want = [fresh(used) for used in (None, a, b, no_lora)]
    assert not same(want[0][0], want[1][0]) and not torch.equal(want[1][1], want[2][1])
    backbone = Backbone.load(str(model), dtype=dtype, device="cpu")  # pyright: ignore[reportArgumentType]
    for index in (1, 2, 1, 0, 3, 2, 0, 1, 1):
        used = (None, a, b, no_lora)[index]
        backbone.use(used)
        assert backbone.concepts is used
        assert same(weights(backbone), want[index][0])
        assert torch.equal(image(backbone, prompt if used else "a photo"), want[index][1])


def test_prompts_without_class_tokens_stay_as_they_were(model: Path) -> None:
    backbone = Backbone.load(str(model), dtype="fp32", device="cpu")
    texts = ["", "a photo of a bird", "<class_3> in 100% <b>", "x" * 200]
    before = [backbone.prompt(text).clone() for text in texts]
    size = len(backbone.pipeline.tokenizer)
    backbone.use(concepts({}))
    assert all(torch.equal(backbone.prompt(text), was) for text, was in zip(texts, before, strict=True))
    assert len(backbone.pipeline.tokenizer) == size


def test_each_class_has_its_own_vector_whatever_its_name(model: Path) -> None:
    backbone = Backbone.load(str(model), dtype="fp32", device="cpu")
    backbone.use(concepts({}))
    found = [backbone.prompt(f"a photo of a {concepts({}).name_of(name)} bird") for name in NAMES]
    for i, one in enumerate(found):
        assert all(not torch.allclose(one, other, atol=1e-3) for other in found[:i])


def test_a_prompt_is_cut_at_its_tokens_as_diffusers_cuts_it(model: Path) -> None:
    backbone = Backbone.load(str(model), dtype="fp32", device="cpu")
    tokenizer = backbone.pipeline.tokenizer
    ours = concepts({}, tokens=2)
    size = len(tokenizer)
    texts = [f"a photo of {ours.name_of('plain')}, on a branch", ours.name_of("-"), f"x{ours.name_of('-')}y  z"]
    rows = {name: size + row for name, row in ours.rows.items()}
    cut = [prompt_ids(tokenizer, text, ours.rows, size) for text in texts]
    tokenizer.add_tokens(list(ours.rows))
    assert {name: tokenizer.convert_tokens_to_ids(name) for name in rows} == rows
    kind = {"padding": "max_length", "truncation": True, "max_length": tokenizer.model_max_length}
    assert cut == [tokenizer(text, **kind).input_ids for text in texts]


def test_a_token_that_would_be_cut_off_is_an_error_and_a_long_suffix_is_not(garments: Backbone) -> None:
    own = {"shoe": tuple(token(0, k) for k in range(10))}
    garments.use(Concepts(own, torch.randn(10, 64), {}))
    name = garments.concepts.name_of("shoe") if garments.concepts else ""
    fits = garments.prompt(f"a photo of a {name}")
    assert fits.shape == (16, 64)
    assert torch.equal(garments.prompt(f"a photo of a {name} on"), garments.prompt(f"a photo of a {name} on grass"))
    with pytest.raises(ModelError, match=r"learn\.tokens"):
        garments.prompt(f"a photo of a very large {name}")
    garments.use(None)


def test_a_token_that_is_not_in_use_is_an_error(model: Path) -> None:
    backbone = Backbone.load(str(model), dtype="fp32", device="cpu")
    for used in (None, concepts({})):
        backbone.use(used)
        with pytest.raises(ModelError, match="<c00099-0>"):
            backbone.prompt("a photo of a <c00099-0>")


def test_concepts_of_another_model_are_refused_and_change_nothing(model: Path, tmp_path: Path) -> None:
    backbone = Backbone.load(str(model), dtype="fp32", device="cpu")
    write_attn_procs_lora(tmp_path / "a", model)
    good = concepts(read_lora(tmp_path / "a"))
    backbone.use(good)
    before = weights(backbone)
    wide = Concepts({"a": (token(0, 0),)}, torch.zeros(1, 48), {})
    elsewhere = {key.replace("down_blocks.0", "down_blocks.7"): value for key, value in good.lora.items()}
    for bad in (wide, Concepts(good.tokens, good.vectors, elsewhere)):
        with pytest.raises(ModelError):
            backbone.use(bad)
        assert backbone.concepts is good and same(weights(backbone), before)


def test_two_thousand_classes(model: Path) -> None:
    backbone = Backbone.load(str(model), dtype="fp32", device="cpu")
    many = concepts({}, names=tuple(f"class {k}" for k in range(2_000)), tokens=4)
    backbone.use(many)
    prompts = [f"a photo of a {many.name_of(f'class {k}')} {end}" for k in range(0, 2_000, 2) for end in ("", "x", "y")]
    prompts = prompts[: CACHED_PROMPTS + 50]
    first = backbone.prompt(prompts[0]).clone()
    for prompt in prompts:
        backbone.prompt(prompt)
    assert len(backbone._prompts) == CACHED_PROMPTS  # pyright: ignore[reportPrivateUsage]
    assert torch.equal(backbone.prompt(prompts[0]), first)
    assert prompt_ids(backbone.pipeline.tokenizer, many.name_of("class 1999"), many.rows, 514)[1:5] == [
        514 + row for row in range(7_996, 8_000)
    ]


def test_the_lora_reaches_every_attention(model: Path, tmp_path: Path) -> None:
    write_attn_procs_lora(tmp_path / "a", model)
    backbone = Backbone.load(str(model), dtype="fp32", device="cpu")
    before = weights(backbone)
    backbone.use(concepts(read_lora(tmp_path / "a")))
    after = weights(backbone)
    changed = {name.removeprefix("0.").removesuffix(".weight") for name in before if name in after} & {
        name.removeprefix("0.").removesuffix(".weight")
        for name in before
        if name in after and not torch.equal(before[name], after[name])
    }
    assert changed == set(attention_projections(model))


# What tokens start from.


def test_tokens_start_from_the_words_that_the_tokenizer_knows(garments: Backbone) -> None:
    tokenizer = garments.pipeline.tokenizer
    table = garments.pipeline.text_encoder.get_input_embeddings().weight
    ids = {word: tokenizer(word, add_special_tokens=False).input_ids for word in ("top", "shoe", "bag", "photo")}
    assert all(len(found) == 1 for found in ids.values())
    assert known_ids(tokenizer, "Shoe of 12 quokkas") == ids["shoe"] + known_ids(tokenizer, "of")
    assert known_ids(tokenizer, "Coat") == known_ids(tokenizer, "T x 7") == known_ids(tokenizer, "中文") == []

    def start(words: str, metaclass: str = "", tokens: int = 1) -> Tensor:
        return start_rows(tokenizer, table, [words], metaclass, tokens)

    assert torch.equal(start("the shoe")[0], table[ids["shoe"]][0])  # `the` is no word of its captions
    assert torch.equal(start("bag shoe")[0], (table[ids["bag"]] + table[ids["shoe"]])[0] / 2)
    assert torch.equal(start("Coat", "top")[0], table[ids["top"]][0])
    assert torch.equal(start("Coat", "7")[0], table[ids["photo"]][0])
    assert torch.equal(start("bag shoe", tokens=2), table[ids["bag"] + ids["shoe"]])
    assert torch.equal(start("bag", tokens=3), table[ids["bag"] * 3])


def test_a_tokenizer_of_bytes_knows_no_word_at_all(model: Path) -> None:
    backbone = Backbone.load(str(model), dtype="fp32", device="cpu")
    table = backbone.pipeline.text_encoder.get_input_embeddings().weight
    rows = start_rows(backbone.pipeline.tokenizer, table, ["bird"], "animal", 1)
    torch.testing.assert_close(rows[0], table.float().mean(0))


def test_only_the_new_rows_have_a_gradient() -> None:
    table = nn.Embedding(10, 4).requires_grad_(False)
    extended = TokenTable(table, torch.randn(3, 4))
    extended.rows.requires_grad_(True)
    out = extended(torch.tensor([[0, 9, 10, 12]]))
    assert torch.equal(out[0, :2], table.weight[[0, 9]]) and torch.equal(out[0, 2:], extended.rows[[0, 2]])
    out.sum().backward()
    assert table.weight.grad is None and extended.rows.grad is not None
    assert extended.rows.grad.sum(1).tolist() == [4, 0, 4]
