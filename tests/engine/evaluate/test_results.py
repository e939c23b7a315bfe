"""Results that accumulate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from diffii.dataset.storage import Storage
from diffii.dataset.tables import read_table, write_table
from diffii.errors import OutputError
from engine.evaluate.results import KEY, RESULTS, Rows


def key(**more: Any) -> dict[str, Any]:
    first = {"task": "t", "arm": "real", "shots": 5, "imbalance": None, "classifier": "scratch", "seed": 0}
    return {**first, "settings": "s", **more}


def rows(folder: Path) -> Rows:
    return Rows(Storage(str(folder)), "results.parquet", RESULTS, KEY)


def test_rows_are_kept_in_order_and_found_again(tmp_path: Path) -> None:
    first = rows(tmp_path)
    for seed in (10, 2):
        first.add(key(seed=seed) | {"accuracy": 50.0 + seed, "p": 0.5})
    first.add(key(seed=2) | {"accuracy": 60.0})
    again = rows(tmp_path)
    assert [(row["seed"], row["accuracy"]) for row in again.where(arm="real")] == [(2, 60.0), (10, 60.0)]
    empty = dict.fromkeys(RESULTS.names)
    assert again.find(**key(seed=10)) == {**empty, **key(seed=10), "accuracy": 60.0, "p": 0.5}
    assert again.find(**key(seed=3)) is None
    assert again.find(**key(seed=2, settings="other")) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.parquet"]


def test_the_first_columns_are_those_agreed_on(tmp_path: Path) -> None:
    rows(tmp_path).add(key() | {"accuracy": 1.0})
    names = read_table((tmp_path / "results.parquet").read_bytes()).column_names
    wanted = ["task", "arm", "shots", "imbalance", "classifier", "seed", "accuracy", "worst_group", "few", "novel"]
    assert names[:10] == wanted


def test_results_of_an_earlier_version_lack_the_newest_figures_alone(tmp_path: Path) -> None:
    rows(tmp_path).add(key() | {"accuracy": 1.0, "base": 2.0, "p": 0.5})
    path = tmp_path / "results.parquet"
    path.write_bytes(write_table(read_table(path.read_bytes()).drop_columns(["group_average"])))
    found = rows(tmp_path).find(**key())
    assert found == {**dict.fromkeys(RESULTS.names), **key(), "accuracy": 1.0, "base": 2.0, "p": 0.5}


def test_another_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    for data in (b"no table", write_table(pa.table({"thesis": [1]}))):
        (tmp_path / "results.parquet").write_bytes(data)
        with pytest.raises(OutputError, match=r"results\.parquet is no table of this version's results"):
            rows(tmp_path)
        assert (tmp_path / "results.parquet").read_bytes() == data
