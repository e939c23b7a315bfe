"""One configuration from files, `--set` and Python; whatever is wrong is one line that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffii.errors import ConfigError
from engine.config import GROWABLE, OPERATIONAL, UNSAID, Config, ExpansionConfig
from engine.settings import KEYS, from_flat, load_config


def refused(**arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(**arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


def test_the_defaults_are_a_configuration() -> None:
    assert load_config() == Config() == from_flat(Config().flat())


def test_every_key_is_of_one_kind() -> None:
    assert set(KEYS) > GROWABLE | OPERATIONAL and not GROWABLE & OPERATIONAL
    every = {"arm.name": "noise", "output.encoding": "webp", "output.quality": 80, "source.fit": "pad"}
    every |= {"inversion.solver": "dpm++", "generation.solver": "dpm++", "generation.guidance_interval": [0.2, 0.8]}
    every |= {"backbone.compile": True, "learn.micro_batch": 2}
    assert set(from_flat(every).identity()) == set(KEYS) - GROWABLE - OPERATIONAL
    unnamed = {key for key in KEYS if key.startswith("arm.")}
    older = from_flat({"output.mark": False, "inversion.diffuse": 0})
    known = set(KEYS) - GROWABLE - OPERATIONAL - set(UNSAID)
    assert set(older.identity()) == known - unnamed, "logs from before these had settings"
    assert set(Config().identity()) == known - unnamed | {"output.mark", "inversion.diffuse"}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("expansion.factr", "expansion.factor"),
        ("generation.guidance", "generation.guidance_scale"),
        ("output.shard_row", "output.shard_rows"),
        ("actor.max", "actors.max"),
        ("factor", "expansion.factor"),
        ("embedder", "dedup.embedder"),
    ],
)
def test_an_unknown_key_names_the_nearest(wrong: str, right: str) -> None:
    assert refused(sets=[f"{wrong}=1"]) == f"{wrong} is no configuration key; did you mean {right}?"


def test_a_key_without_its_group_names_every_group_that_has_it() -> None:
    said = refused(sets=["micro_batch=4"]).partition("did you mean ")[2].rstrip("?").split(" or ")
    assert {"inversion.micro_batch", "generation.micro_batch"} <= set(said) <= set(KEYS)


@pytest.mark.parametrize(
    "setting",
    [
        "expansion.factor=0",
        "expansion.factor=.nan",
        "expansion.factor=many",
        "expansion.per_class=0",
        "expansion.per_class=2.5",
        "expansion.target=0",
        "expansion.target=-3",
        "expansion.target=2.5",
        "expansion.target=true",
        "expansion.target=even",
        "expansion.seed=-1",
        "expansion.seed=9223372036854775808",
        "generation.guidance_scale=0.5",
        "generation.split=1.1",
        "generation.steps=0",
        "inversion.steps=1001",
        "inversion.preset=other",
        "output.encoding=gif",
        "output.quality=0",
        "output.quality=101",
        "output.shard_rows=0",
        "commit.chunk_size=5000",
        "actors.gpus=-1",
        "prompts.class_names=[a]",
    ],
)
def test_a_value_out_of_range_is_named(setting: str) -> None:
    message = refused(sets=[setting])
    assert message.startswith(f"{setting.partition('=')[0]}=") and ": " in message


def test_the_message_says_what_would_be_right() -> None:
    assert refused(sets=["generation.split=1.1"]) == "generation.split=1.1: input should be less than or equal to 1"


def test_actors_max_below_min_is_refused() -> None:
    assert refused(sets=["actors.min=4", "actors.max=3"]) == "actors.max=3: must be at least actors.min (4)"
    assert load_config(sets=["actors.min=4", "actors.max=4"]).actors.max == 4
    assert load_config(sets=["actors.min=4"]).actors.max is None


def test_a_class_is_told_one_target_only() -> None:
    message = refused(sets=["expansion.per_class=7", "expansion.target=balanced"])
    assert message.startswith("expansion.per_class=7: ") and "expansion.target=balanced; give one" in message
    assert load_config(sets=["expansion.per_class=7", "expansion.target=factor"]).expansion.per_class == 7
    with pytest.raises(ValueError, match="give one of the two"):
        ExpansionConfig(per_class=7, target=20)


def test_a_target_in_a_file_is_a_number_or_a_word(yaml_file: Path) -> None:
    for written, read in (("100", 100), ("'100'", 100), ("balanced", "balanced")):
        yaml_file.write_text(f"expansion: {{target: {written}}}")
        assert load_config(yaml_file).expansion.target == read


@pytest.mark.parametrize("template", ["a photo", "a {nam}", "{name} {0}", "{name} {", "{name!x}"])
def test_a_template_must_name_the_class(template: str) -> None:
    message = refused(overrides={"prompts.template": template})
    assert message.startswith("prompts.template=") and "value error" not in message.lower()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("expansion.factor=10", 10.0),
        ("expansion.factor=1e3", 1000.0),
        ("expansion.per_class=null", None),
        ("expansion.target=100", 100),
        ("expansion.target=balanced", "balanced"),
        ("generation.micro_batch=4", 4),
        ("prompts.suffixes=[on a branch, 'in flight, low']", ["on a branch", "in flight, low"]),
        ("prompts.suffixes=[]", []),
        (
            "prompts.class_names={bugatti_veyron_16.4: bugatti veyron, a/b: a or b}",
            {"bugatti_veyron_16.4": "bugatti veyron", "a/b": "a or b"},
        ),
        ("prompts.template='a {name}: {metaclass}'", "a {name}: {metaclass}"),
        ("prompts.metaclass=", ""),
        ("prompts.metaclass=sea bird", "sea bird"),
        (" output.url =s3://bucket/a=b", "s3://bucket/a=b"),
    ],
)
def test_set_reads_yaml_values(setting: str, value: Any) -> None:
    assert load_config(sets=[setting]).flat()[setting.partition("=")[0].strip()] == value


def test_set_needs_a_key_a_value_and_yaml() -> None:
    assert refused(sets=["expansion.factor"]) == "--set expansion.factor: write it as key=value"
    assert refused(sets=["prompts.suffixes=[a"]).startswith("--set prompts.suffixes=[a: not a YAML value")
    assert refused(sets=["prompts.suffixes=2024-13-45"]).startswith("--set prompts.suffixes=2024-13-45: not a YAML")


@pytest.mark.parametrize("text", ["2024-01-01", "2024-13-45", "no", "16.4", "[a]", "a {name}: b", "été"])
def test_a_setting_that_is_text_stays_text(text: str) -> None:
    assert load_config(sets=[f"prompts.metaclass={text}"]).prompts.metaclass == text


def test_suffixes_come_from_a_text_file(tmp_path: Path) -> None:
    file = tmp_path / "suffixes.txt"
    file.write_text("on a branch\n\n  dans le pré  \n", encoding="utf-8")
    assert load_config(sets=[f"prompts.suffixes={file}"]).prompts.suffixes == ["on a branch", "dans le pré"]
    file.write_text("\n \n")
    assert "holds no suffix" in refused(sets=[f"prompts.suffixes={file}"])
    file.write_bytes(b"\xff\xfe")
    assert refused(sets=[f"prompts.suffixes={file}"]).startswith("prompts.suffixes=")
    assert "neither a list nor a text file" in refused(sets=[f"prompts.suffixes={tmp_path / 'gone.txt'}"])


def test_a_file_may_be_nested_or_dotted(yaml_file: Path) -> None:
    yaml_file.write_text(
        "expansion:\n  factor: 3\n  seed: 7\n"
        "generation.split: 0.5\n"
        "prompts:\n  metaclass: oiseau d'été\n  class_names: {16.4: veyron}\n"
        "prompts.class_names: {veyron_16.4: veyron}\n"
        "actors:\n  # max: 3\n",
        encoding="utf-8",
    )
    config = load_config(yaml_file)
    assert (config.expansion.factor, config.expansion.seed, config.generation.split) == (3, 7, 0.5)
    assert config.prompts.metaclass == "oiseau d'été"
    assert config.prompts.class_names == {"veyron_16.4": "veyron"}
    assert config.actors == Config().actors


def test_an_empty_file_changes_nothing(yaml_file: Path) -> None:
    yaml_file.write_text("# nothing yet\n")
    assert load_config(yaml_file) == Config()


def test_later_wins(yaml_file: Path) -> None:
    yaml_file.write_text("expansion: {factor: 2, seed: 2}\ngeneration: {steps: 2}\n")
    defaults = {"expansion.factor": 1, "expansion.seed": 1, "generation.steps": 1, "inversion.steps": 1}
    sets = ["expansion.factor=3", "expansion.seed=3", "expansion.seed=4"]
    config = load_config(yaml_file, sets, defaults, {"expansion.factor": 5})
    values = (config.expansion.factor, config.expansion.seed, config.generation.steps, config.inversion.steps)
    assert values == (5, 4, 2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("expansion: [", "is not YAML"),
        ("expansion: {seed: 2024-13-45}", "is not YAML"),
        ("a: !!python/object:os.system {}", "is not YAML"),
        ("- expansion", "must hold keys and values"),
        ("expansion", "must hold keys and values"),
        ("expansion: 5", "expansion is no configuration key; did you mean expansion"),
        ("expansion: {facto: 5}", "expansion.facto is no configuration key; did you mean expansion.factor?"),
        ("nonsense:", "nonsense is no configuration key"),
        ("1: {2: 3}", "1.2 is no configuration key"),
        ("expansion: {factor: -1}", "expansion.factor=-1: "),
    ],
)
def test_a_file_that_is_wrong_says_how(yaml_file: Path, text: str, message: str) -> None:
    yaml_file.write_text(text)
    assert message in refused(file=yaml_file)


def test_a_file_that_cannot_be_read_is_named(yaml_file: Path) -> None:
    assert refused(file=yaml_file) == f"--config {yaml_file}: there is no such file"
    yaml_file.write_bytes(b"\xff\xfe\xfa")
    assert "is not YAML" in refused(file=yaml_file)
    assert "cannot be read" in refused(file=yaml_file.parent)
    assert "cannot be read" in refused(file=yaml_file / "run.yaml")


def test_further_formats_change_nothing_that_a_run_is() -> None:
    for text in ("webdataset", "[mds, webdataset]", "parquet,mds"):
        found = load_config(sets=[f"output.format={text}", "output.include_real=true"])
        assert found.output.format[0] == "parquet" and len(found.output.format) == len(set(found.output.format)) > 1
        assert found.identity() == Config().identity()
        assert from_flat(found.flat()) == found
    assert refused(sets=["output.format=tar"]).startswith("output.format=")


def test_png_has_no_quality() -> None:
    assert refused(sets=["output.quality=80"]).startswith("output.quality=80: png is lossless and has none")
    assert load_config(sets=["output.encoding=webp", "output.quality=80"]).output.quality == 80
