"""A CLIP tokenizer whose vocabulary is the words of the captions, plus single bytes for everything else."""

from __future__ import annotations

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from diffii.garments.catalog import COARSE, CONTEXTS, caption

MAX_TOKENS = 16
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def new_tokenizer() -> CLIPTokenizer:
    """Words of the captions are one token each; any other text falls apart into bytes and is never unknown."""
    captions = [caption(name, context) for name in COARSE for context in (None, *CONTEXTS)]
    words = sorted({word for text in captions for word in text.split()})
    letters = sorted(ByteLevel.alphabet())
    tokens = letters + [letter + "</w>" for letter in letters]
    merges: list[tuple[str, str]] = []
    for word in words:
        # Each word grows from its left end; shared beginnings give shared merges, so no word breaks another.
        left = word[0]
        for position in range(1, len(word)):
            last = position == len(word) - 1
            right = word[position] + ("</w>" if last else "")
            if (left, right) not in merges:
                merges.append((left, right))
            left += right
    tokens += list(dict.fromkeys(left + right for left, right in merges))
    vocabulary = {token: index for index, token in enumerate([*tokens, BOS, EOS])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)  # pyright: ignore
    for word in words:
        pieces = tokenizer.tokenize(word)
        if len(pieces) != 1:
            raise AssertionError(f"the word {word!r} falls apart into {pieces}")
    return tokenizer
