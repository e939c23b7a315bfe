"""Class tokens in prompts: their names, their rows beside the embedding table, and what they start from.

A token is named by its class's index, never by its name: class names hold anything. The tokenizer is left as it is; a
prompt is cut at the tokens in it, so two thousand classes cost no more than two.

N rows (all tokens of all classes)   D text width   V size of the model's own embedding table   T positions
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffii.errors import ModelError

_TOKEN = re.compile(r"<c\d{5,}-\d+>")
_WORD = re.compile(r"[^\W\d_]{2,}")
LETTERS_PER_TOKEN = 3
"""A tokenizer knows a word that is one token, or whose pieces have three letters on average (`gold` `finch`). Others
it spells, and the mean of the letters' embeddings says nothing."""
NEUTRAL = ("object", "thing", "item", "photo", "image", "picture")
"""What a token starts from when the tokenizer knows neither the class's words nor the metaclass: the first known."""


def token(index: int, part: int) -> str:
    """The name of part `part` of class `index`; class 12's first is `<c00012-0>`."""
    return f"<c{index:05d}-{part}>"


class TokenTable(nn.Module):
    """The model's embedding table with learned rows after its last: id V + k is row k.

    The rows are a parameter of their own, so learning them makes no gradient of the whole table.
    """

    def __init__(self, table: nn.Embedding, rows_ND: Tensor) -> None:
        super().__init__()
        self.table = table
        self.rows = nn.Parameter(rows_ND, requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (..., T) -> embeddings (..., T, D)."""
        size = self.table.num_embeddings
        own = self.table(ids.clamp(max=size - 1))
        # Learned in float32, read in the model's own arithmetic, as generation reads them.
        learned = self.rows[(ids - size).clamp(min=0)].to(own.dtype)
        return torch.where((ids >= size).unsqueeze(-1), learned, own)


def prompt_ids(tokenizer: Any, text: str, rows: Mapping[str, int], first: int) -> list[int]:
    """The ids of a prompt, padded or cut to the tokenizer's length; a class token's id is `first` + its row.

    Raises ModelError for a class token that is not in `rows`, or that lies beyond the last position.
    """
    found = _TOKEN.findall(text)
    length = int(tokenizer.model_max_length)
    if not found:
        return tokenizer(text, padding="max_length", truncation=True, max_length=length).input_ids
    if unknown := [name for name in found if name not in rows]:
        raise ModelError(f"the prompt {text!r} names {unknown[0]}, which is no token of the concepts in use")
    ids: list[int] = [tokenizer.bos_token_id]
    for position, piece in enumerate(_TOKEN.split(text)):
        if position:
            ids.append(first + rows[found[position - 1]])
        ids += tokenizer(piece, add_special_tokens=False).input_ids
    if any(number >= first for number in ids[length - 1 :]):
        raise ModelError(
            f"the prompt {text!r} is {len(ids) + 1} tokens long and the model reads {length}, so a class token "
            "would be cut off: set learn.tokens lower or the template shorter"
        )
    ids = [*ids[: length - 1], tokenizer.eos_token_id]
    return ids + [tokenizer.pad_token_id] * (length - len(ids))


def start_rows(tokenizer: Any, table: Tensor, words: Sequence[str], metaclass: str, tokens: int) -> Tensor:
    """What each class's tokens start from: float32 (classes x tokens, D).

    `table` is the embedding table (V, D), `words` what each class is called. The known words' embeddings are dealt to
    the class's tokens in their order; a class with fewer of them than tokens starts all from their mean. A class of
    which no word is known starts from the metaclass, then from a neutral word, then from the table's mean.
    """
    rest = next((ids for text in (metaclass, *NEUTRAL) if (ids := known_ids(tokenizer, text))), None)
    fallback = table.float()[rest] if rest else table.float().mean(0, keepdim=True)
    rows: list[Tensor] = []
    for text in words:
        ids = known_ids(tokenizer, text)
        vectors = table.float()[ids] if ids else fallback
        parts = vectors.tensor_split(tokens) if ids and len(ids) >= tokens else [vectors] * tokens
        rows += [part.mean(0) for part in parts]
    return torch.stack(rows)


def known_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of the words of `text` that the tokenizer knows (see LETTERS_PER_TOKEN), in their order."""
    ids: list[int] = []
    for word in _WORD.findall(text):
        pieces = tokenizer(word, add_special_tokens=False).input_ids
        known = len(pieces) == 1 or len(pieces) * LETTERS_PER_TOKEN <= len(word)
        if known and tokenizer.unk_token_id not in pieces:
            ids += pieces
    return ids
