"""What a study asks: its tasks, its names, and what it refuses before anything is made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from diffii.errors import ConfigError, SourceError
from engine.defaults import GARMENTS, PRESETS
from engine.evaluate.publish import _markdown
from engine.evaluate.sets import _name, _parquet
from engine.evaluate.study import Study
from engine.evaluate.tasks import TUNING_SEED, Questions, draw
from engine.scan import read_source
from engine.settings import from_flat

FEW = Questions(protocol="garments-fewshot", shots=2)


def study(**more: object) -> Study:
    return Study(**{"url": "nowhere", "questions": FEW, **more})  # pyright: ignore


def folder(path: Path, **classes: int) -> str:
    for number, (name, count) in enumerate(classes.items()):
        (path / name).mkdir(parents=True)
        for k in range(count):
            Image.new("RGB", (8, 8), (10 * number, k, len(path.name))).save(path / name / f"{k}.png")
    return str(path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "either --protocol, or --source"),
        ({"protocol": "garments-fewshot", "source": "x", "test": "y"}, "either --protocol, or --source"),
        ({"source": "x"}, "--test is missing"),
        ({"protocol": "garments-fewshot", "validation": "x"}, "--test and --validation go with --source"),
        ({"protocol": "garments"}, "there are garments-fewshot, garments-lt, garments-ood, cub-fewshot"),
        ({"protocol": "cub-lt"}, "needs --data FOLDER"),
    ],
)
def test_questions_that_make_no_sense(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Questions(**wrong)  # pyright: ignore


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"arms": ("reel",)}, "--arms reel: there are real, mixup, cutmix, diff-ii, noise"),
        ({"arms": ()}, "at least one arm"),
        ({"p": 1.5}, "--p 1.5"),
        ({"lr": 0.0}, "--lr 0.0"),
        ({"seeds": 0}, "--seeds must be 1 or more"),
        ({"trainings": 0}, "--trainings must be 1 or more"),
        ({"first_seed": 999, "seeds": 2}, "seeds from 1000 on are for choosing settings"),
        ({"first_seed": 999, "seeds": 2, "tuning_seeds": 0}, "seeds from 1000 on are for choosing settings"),
        ({"first_seed": 1000, "tuning_seeds": 1}, "explore with --first-seed 1000 --tuning-seeds 0"),
    ],
)
def test_studies_that_make_no_sense(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        study(**wrong)


def test_settings_name_what_makes_a_difference_and_nothing_else() -> None:
    def named(arm: str = "diff-ii", **values: object) -> str:
        return study(config=from_flat(values)).settings(arm)

    other = {"generation.split": 0.6, "expansion.factor": 7, "learn.concepts": "off", "dedup.embedder": "off"}
    assert len({named(), named("noise"), *(named(**{key: value}) for key, value in other.items())}) == 6
    assert named() == named(**{"actors.max": 3, "expansion.seed": 9, "learn.seed": 4, "source.url": "x"})
    assert named("real") == named("real", **other), "real images are the same whatever is made beside them"
    assert named("noise") == named("noise", **{"actors.max": 2})
    assert study(p=0.3).settings("real") != study().settings("real")


def test_settings_name_what_auto_and_a_preset_mean_where_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(**values: object) -> str:
        return study(config=from_flat(values)).settings("diff-ii")

    fast = {"inversion.preset": "fast"}
    before = named(), named(**fast)
    monkeypatch.setitem(PRESETS["fast"], "generation.steps", 99)
    assert named() == before[0], "another preset was changed"
    changed = named(**fast)
    assert changed != before[1]
    monkeypatch.setitem(GARMENTS, "generation.guidance_scale", 9.0)
    assert named() != before[0]
    assert named(**fast) not in {before[1], changed}
    assert named(**{"generation.guidance_scale": 1.5}) == before[0], "said, or brought: it is the same set"


def test_a_set_has_its_draws_seeds_and_a_long_tail_its_own_number() -> None:
    task = draw(FEW, 3)
    config = study(config=from_flat({"expansion.factor": 4})).config_of(task, "noise", "in", "out")
    assert (config.expansion.seed, config.learn.seed, config.arm.name, config.expansion.factor) == (3, 3, "noise", 4)
    tail = draw(Questions(protocol="garments-lt", imbalance=10), 0)
    assert study().config_of(tail, "diff-ii", "in", "out").expansion.per_class == 50
    own = study(config=from_flat({"expansion.target": "balanced"})).config_of(tail, "diff-ii", "in", "out")
    assert (own.expansion.per_class, own.expansion.target) == (None, "balanced")


def test_every_arm_meets_every_classifier_but_cutmix_and_features() -> None:
    pairs = study(arms=("real", "cutmix"), classifiers=("scratch", "lite0")).pairs
    assert pairs == [("real", "scratch"), ("real", "lite0"), ("cutmix", "scratch")]


def test_what_is_tried() -> None:
    assert study().probabilities("real") == (0.0,)
    assert study().probabilities("diff-ii") == (0.3, 0.5, 0.8)
    assert study(tuning_seeds=0).probabilities("diff-ii") == (0.5,)
    assert study(p=0.7).probabilities("diff-ii") == (0.7,)
    assert study().learning_rates((1, 2, 3)) == (1, 2, 3)
    assert study(tuning_seeds=0).learning_rates((1, 2, 3)) == (2,)
    assert study(lr=0.4).learning_rates((1, 2, 3)) == (0.4,)


def test_the_table_says_where_p_and_the_learning_rate_come_from() -> None:
    def told(**more: object) -> str:
        return _markdown(study(**more), draw(FEW, 0), [])

    assert "p: chosen on 2 other draws; learning rate: chosen on 2 other draws." in told()
    assert "p: 0.5 as given; learning rate: chosen on 2 other draws." in told(p=0.5)
    assert "p: the usual one; learning rate: 0.01 as given." in told(tuning_seeds=0, lr=0.01)


def test_a_draw_is_written_so_that_the_engine_reads_the_same_classes(tmp_path: Path) -> None:
    task = draw(Questions(protocol="garments-lt", imbalance=100), 0)
    (tmp_path / "train.parquet").write_bytes(_parquet(task))
    source = read_source(str(tmp_path))
    assert source.classes == task.classes
    assert [len(images) for images in source.by_class] == list(task.counts)


def test_own_images_are_all_trained_on_and_a_fifth_is_kept_apart_while_choosing(tmp_path: Path) -> None:
    train, held = folder(tmp_path / "train", ant=10, bee=2, cat=1), folder(tmp_path / "held", bee=3, cat=2)
    questions = Questions(source=train, test=held)
    task, choosing = draw(questions, 0), draw(questions, TUNING_SEED)
    assert (task.counts, task.validation, len(task.test)) == ((10, 2, 1), (), 5)
    assert [sample.label for sample in task.test] == [1, 1, 1, 2, 2], "matched by name"
    assert (choosing.counts, len(choosing.validation)) == ((8, 1, 1), 3)
    assert not {sample.where for sample in choosing.train} & {sample.where for sample in choosing.validation}
    assert task.train[0].image().size == (8, 8)
    choose = folder(tmp_path / "choose", bee=1, cat=1)
    apart = draw(Questions(source=train, test=held, validation=choose), TUNING_SEED)
    assert (apart.counts, len(apart.validation)) == ((10, 2, 1), 2)


def test_what_is_trained_on_chosen_on_and_measured_on_must_differ(tmp_path: Path) -> None:
    train, held, choose = (folder(tmp_path / name, ant=2, bee=2) for name in ("train", "held", "choose"))
    draw(Questions(source=train, test=held, validation=choose), 0)
    copy = Path(train, "ant", "0.png").read_bytes()
    Path(choose, "ant", "9.png").write_bytes(copy)
    with pytest.raises(SourceError, match=r"choose/ant/9\.png is the same image as .*train/ant/0\.png; --source"):
        draw(Questions(source=train, test=held, validation=f"{choose}/"), 0)
    with pytest.raises(SourceError, match=r"is the same image as .*, and so are 3 more; --source"):
        draw(Questions(source=train, test=f"{train}/"), 0)
    with pytest.raises(SourceError, match="is the same image as"):
        draw(Questions(source=train, test=held, validation=f"{held}/"), 0)


def test_figures_of_ones_own_images_are_named_by_what_these_hold(tmp_path: Path) -> None:
    train, held, choose = (folder(tmp_path / name, ant=2, bee=2) for name in ("train", "held", "choose"))
    copied = str(tmp_path / "elsewhere" / "train")
    shutil.copytree(train, copied)

    def named(**urls: str) -> str:
        return study(questions=Questions(**urls)).settings("real")  # pyright: ignore

    first = named(source=train, test=held)
    assert named(source=copied, test=held) == first
    others = (named(source=train, test=choose), named(source=train, test=held, validation=choose))
    assert len({first, *others, study().settings("real")}) == 4
    assert named(source=held, test=train) not in {first, *others}


def test_sets_of_ones_own_images_lie_apart(tmp_path: Path) -> None:
    def called(asked: Questions) -> str:
        return _name(study(questions=asked), draw(asked, 0))

    train, held, choose = (folder(tmp_path / name, ant=2, bee=2) for name in ("train", "held", "choose"))
    first, other = (called(Questions(source=train, test=held, validation=validation)) for validation in ("", choose))
    assert first.startswith("train-") and other.startswith("train-") and first != other
    assert called(FEW) == "garments-fewshot-2-shot", "a protocol's draws follow from their name and seed"


def test_own_images_that_do_not_fit(tmp_path: Path) -> None:
    train, held = folder(tmp_path / "train", ant=1, bee=1), folder(tmp_path / "held", wasp=1)
    one = folder(tmp_path / "one", bee=1)
    with pytest.raises(SourceError, match="the class 'wasp', which there is nothing to train on for"):
        draw(Questions(source=train, test=held), 0)
    with pytest.raises(SourceError, match="no class has two images"):
        draw(Questions(source=train, test=one), TUNING_SEED)
