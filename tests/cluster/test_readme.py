"""The page for clusters: its examples are specifications that render, by the commands that it shows."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from cluster.cli import app
from cluster.spec import Provider, Spec

PAGE = (Path(__file__).parents[2] / "cluster" / "README.md").read_text(encoding="utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", PAGE, re.MULTILINE)]


def example(provider: Provider) -> str:
    (common,) = [block for block in BLOCKS if re.search(r"^name: birds$", block, re.MULTILINE)]
    (section,) = [block for block in BLOCKS if re.search(rf"^{provider}:", block, re.MULTILINE)]
    section = "\n".join(line for line in section.splitlines() if line.startswith((f"{provider}:", " ", "gpu:")))
    if "gpu:" in [line[:4] for line in section.splitlines()]:
        common = re.sub(r"^gpu: .*\n", "", common, flags=re.MULTILINE)
    return f"{common}\n{section}\n"


@pytest.mark.parametrize("provider", get_args(Provider))
def test_each_example_renders(provider: Provider, tmp_path: Path) -> None:
    spec = tmp_path / "birds.yaml"
    spec.write_text(example(provider), encoding="utf-8")
    done = CliRunner().invoke(app, ["cluster", "render", provider, "--spec", str(spec), "--to", str(tmp_path / "made")])
    assert done.exit_code == 0, done.output
    told = done.output.splitlines()
    assert f"{tmp_path}/made/run.yaml" in told and f"{tmp_path}/made/Dockerfile" in told
    assert any(line.startswith("costs: 0.20 to 4.20 USD an hour (0 to 8 workers)") for line in told)
    assert any("diffii cluster submit" in line or "kubectl apply" in line or "sbatch" in line for line in told)


def test_the_page_names_the_fields_that_have_defaults() -> None:
    sections = {*get_args(Provider)}
    assert all(re.search(rf"\b{name}\b", PAGE) for name in Spec.model_fields if name not in sections)
