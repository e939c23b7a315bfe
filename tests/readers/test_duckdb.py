"""SQL over the Parquet files, as people look into a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from engine.run import Run
from tests.readers.made import Seen, expected, rgb


def asked(query: str) -> list[Any]:
    relation = duckdb.sql(query)
    assert relation is not None
    return relation.fetchall()


def test_sql_sees_every_column(made: Run, copies: dict[str, Path]) -> None:
    query = f"""
        select sample_id, label, class_name, is_synthetic, image.bytes, seed, parent_a, phi
        from read_parquet(['{copies["parquet-real"]}/data/*.parquet', '{copies["parquet-real"]}/real/*.parquet'])
    """
    rows = asked(query)
    seen = [Seen(*row[:4], pixels=rgb(row[4])) for row in rows]
    assert sorted(seen, key=lambda row: row.sample_id) == expected(made, real=True)
    for sample_id, label, _, synthetic, _, seed, parent, phi in rows:
        if synthetic:
            row = next(row for k in range(99) if (row := made.plan.row(label, k)).sample_id == sample_id)
            assert (seed, parent, phi) == (row.seed, row.parent_a, row.phi)
        else:
            assert (seed, parent, phi) == (None, "", None)


def test_a_recipe_can_be_asked_for(made: Run) -> None:
    query = f"""
        select class_name, count(*), count(distinct suffix) from '{made.storage.url}/data/*.parquet'
        where theta > 1.4 and is_synthetic group by all order by class_name
    """
    assert asked(query) == [(name, 4, 2) for name in sorted(made.source.classes)]


def test_an_image_folder_has_its_table(made: Run, copies: dict[str, Path]) -> None:
    place = copies["imagefolder-real"] / "train"
    rows = asked(f"select sample_id, label, class_name, is_synthetic, file_name from '{place}/metadata.parquet'")
    seen = [Seen(*row[:4], pixels=rgb((place / row[4]).read_bytes())) for row in rows]
    assert sorted(seen, key=lambda row: row.sample_id) == expected(made, real=True)
