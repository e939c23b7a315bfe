"""How large a model call should be: what is chosen of what was measured, and that measuring ends where memory does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffii.backbone import Backbone
from diffii.batch_size import Measured, best, generating, inverting
from diffii.errors import ModelError
from diffii.memory import no_memory


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ({1: 5.0}, 1),
        ({1: 5.0, 2: 8.0, 4: 10.0}, 4),
        # 16 rows are 3 % faster than 8: not worth it.
        ({4: 6.0, 8: 9.8, 16: 10.1}, 8),
        # A card that is full gets slower again.
        ({8: 9.0, 16: 10.0, 32: 7.0}, 16),
    ],
)
def test_the_smallest_call_that_is_about_as_fast_as_any_is_taken(rates: dict[int, float], chosen: int) -> None:
    assert best([Measured(rows, rate) for rows, rate in rates.items()]) == chosen


def test_a_device_that_holds_no_row_is_refused() -> None:
    with pytest.raises(ModelError, match="not even one image at a time fits"):
        best([])


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.load("garments")


def test_every_size_is_measured_with_the_model_itself(backbone: Backbone) -> None:
    for found in (generating(backbone, guided=True, sizes=(1, 4)), inverting(backbone, sizes=(1, 4))):
        assert [one.rows for one in found] == [1, 4]
        assert all(one.rate > 0 for one in found)


def test_measuring_ends_where_the_memory_does(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = backbone.epsilon

    def small_card(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        asked.append(len(x))
        if len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(x, *rest)

    monkeypatch.setattr(backbone, "epsilon", small_card)
    # Two rows an image under guidance, one without.
    assert [one.rows for one in generating(backbone, guided=True, sizes=(1, 2, 4, 8))] == [1, 2]
    assert max(asked) == 8
    assert [one.rows for one in generating(backbone, guided=False, sizes=(1, 2, 4, 8))] == [1, 2, 4]
    assert [one.rows for one in inverting(backbone, sizes=(1, 2, 4, 8))] == [1, 2, 4]


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("memory"), False),
    ],
    ids=str,
)
def test_a_full_memory_is_told_from_other_errors(error: Exception, full: bool) -> None:
    assert no_memory(error) is full
