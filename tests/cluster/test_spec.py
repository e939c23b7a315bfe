"""A specification that is wrong is refused in one line that names the field and the mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.spec_file import load_spec
from diffii.errors import ConfigError
from tests.cluster.specs import BIRDS


def spec_file(tmp_path: Path, changes: dict[str, Any]) -> Path:
    tree = yaml.safe_load(BIRDS.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *above, last = key.split("/")
        place = tree
        for part in above:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def test_the_specification_of_the_tests_is_right() -> None:
    assert load_spec(BIRDS).name == "birds"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_worker": 3}, "max_worker is no field of a specification; did you mean max_workers?"),
        ({"aws/regoin": "x"}, "aws.regoin is no field of a specification; did you mean aws.region?"),
        ({"output": None}, "output is missing; URL of the expanded data set"),
        ({"aws/security_group": None}, "aws.security_group is missing; Lets you in by SSH"),
        ({"max_workers": 0}, "max_workers=0: input should be greater than or equal to 1"),
        ({"min_workers": 9}, "max_workers: 8 is below min_workers (9)"),
        ({"image": "registry.example.org:5000/birds"}, "image='registry.example.org:5000/birds': is not one image"),
        ({"image": "birds:latest"}, "add a tag other than latest"),
        ({"output": "birds-x5"}, "output='birds-x5': is a relative path; give a URL"),
        ({"run/source.url": "./birds"}, "source.url=./birds: is a path of this machine"),
        ({"run/source.url": None}, "run.source.url is missing"),
        ({"run/output.url": "s3://b/o"}, "run.output.url is said by `output`"),
        ({"run/expansion.facto": 3}, "run: expansion.facto is no configuration key; did you mean expansion.factor?"),
        ({"run/expansion.factor": -3}, "run: expansion.factor=-3: "),
        ({"prices/worker": None}, "prices.worker is missing"),
        ({"aws/head_role": "me"}, "aws.head_role='me': string should match pattern"),
        ({"aws/secret_access_key": "x"}, "aws.secret_access_key looks like a secret, which belongs in no file"),
        ({"auth_token": "x"}, "auth_token looks like a secret"),
        ({"output": "s3://key:word@bucket/x"}, "output looks like a secret"),
        ({"run/source.url": "https://host/birds?sig=abc"}, "run.source.url looks like a secret"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    file = spec_file(tmp_path, changes)
    with pytest.raises(ConfigError) as error:
        load_spec(file)
    assert str(error.value).startswith(f"--spec {file}: ") or said.startswith("source.url")
    assert said in str(error.value)


def test_settings_of_a_run_that_speak_of_tokens_are_no_secrets(tmp_path: Path) -> None:
    load_spec(spec_file(tmp_path, {"run/captions.max_tokens": 40, "run/learn": {"tokens": 4}}))


def test_what_is_no_specification_is_said(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    for text, said in (("a: [", "is not YAML"), ("- a", "must hold keys and values")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=said):
            load_spec(file)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_spec(tmp_path / "none.yaml")
