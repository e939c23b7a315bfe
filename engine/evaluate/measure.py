"""`evaluate`: choose settings, make sets, train, and keep every figure as soon as it is there.

Trainings are Ray tasks; as many run at once as there are cores or GPUs, beside the expansion of the next draw.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import product
from typing import Any, Self

import ray
from ray.exceptions import RayError

from diffii.arms import ARMS
from diffii.classifiers import classifier
from diffii.dataset.storage import Storage
from diffii.protocols.task import Task
from engine.evaluate.results import KEY, RESULTS, TUNING, Rows
from engine.evaluate.sets import Sets
from engine.evaluate.study import Study
from engine.evaluate.tasks import TUNING_SEED, draw
from engine.evaluate.training import Training, train
from engine.heartbeat import driving
from engine.progress import Progress
from engine.stream import our_error

RESULTS_FILE, CHOICES_FILE, FEATURES = "results.parquet", "choices.parquet", "features"


def evaluate(study: Study, progress: Progress) -> list[dict[str, Any]]:
    """Measure what is missing; returns the rows of this study, earlier ones included. Ray must be running.

    Raises ConfigError or ModelError before anything is made, and what `engine.expand` raises.
    """
    tail = study.questions.long_tailed
    rates = {name: study.learning_rates(classifier(name, tail).learning_rates) for name in study.classifiers}
    storage = Storage(study.url)
    with driving(storage, progress.note), _Trainings(progress) as trainings:
        results = Rows(storage, RESULTS_FILE, RESULTS, KEY)
        tuned = Rows(storage, CHOICES_FILE, TUNING, (*KEY, "p", "lr"))
        sets = Sets(study, progress)
        _choose(study, rates, results, tuned, trainings, sets)
        for seed in study.reported:
            task = draw(study.questions, seed)
            for arm, name in study.pairs:
                key = _key(study, task, arm, name)
                if results.find(**key) is not None:
                    continue
                p, lr = best(study, arm, name, rates[name], tuned)
                order = _order(study, sets, task, arm, name, p, lr, choosing=study.exploring)
                trainings.submit(
                    order, lambda found, key=key, p=p, lr=lr: results.add(key | found | {"p": p, "lr": lr})
                )
        trainings.finish()
        return rows_of(study, results)


def rows_of(study: Study, results: Rows) -> list[dict[str, Any]]:
    """What the study's own table is made of: its arms, classifiers, seeds and settings."""
    task = draw(study.questions, study.first_seed)
    rows = [
        row
        for arm in study.arms
        for row in results.where(
            task=task.name, shots=task.shots, imbalance=task.imbalance, arm=arm, settings=study.settings(arm)
        )
    ]
    return [row for row in rows if row["classifier"] in study.classifiers and row["seed"] in study.reported]


def best(study: Study, arm: str, name: str, rates: tuple[float, ...], tuned: Rows) -> tuple[float, float]:
    """(p, learning rate) of the highest mean accuracy over the tuning seeds; of equal ones the first that is tried."""
    tried = list(product(study.probabilities(arm), rates))
    if len(tried) == 1:
        return tried[0]
    sums = dict.fromkeys(tried, 0.0)
    for seed in _tuning_seeds(study):
        for p, lr in tried:
            found = tuned.find(**_key(study, draw(study.questions, seed), arm, name), p=p, lr=lr)
            assert found is not None
            sums[p, lr] += found["accuracy"]
    return max(tried, key=lambda pair: sums[pair])


def _choose(
    study: Study,
    rates: dict[str, tuple[float, ...]],
    results: Rows,
    tuned: Rows,
    trainings: _Trainings,
    sets: Sets,
) -> None:
    """Measure on the validation images what the reported trainings will need to know."""
    for seed in _tuning_seeds(study):
        task = draw(study.questions, seed)
        for arm, name in study.pairs:
            tried = list(product(study.probabilities(arm), rates[name]))
            key = _key(study, task, arm, name)
            if len(tried) == 1 or all(results.find(**key | {"seed": k}) is not None for k in study.reported):
                continue
            for p, lr in tried:
                if tuned.find(**key, p=p, lr=lr) is None:
                    order = _order(study, sets, task, arm, name, p, lr, choosing=True)
                    row = key | {"p": p, "lr": lr}
                    trainings.submit(order, lambda found, row=row: tuned.add(row | found))
    trainings.finish()


def _tuning_seeds(study: Study) -> range:
    return range(TUNING_SEED, TUNING_SEED + study.tuning_seeds)


def _key(study: Study, task: Task, arm: str, name: str) -> dict[str, Any]:
    return {
        "task": task.name,
        "arm": arm,
        "shots": task.shots,
        "imbalance": task.imbalance,
        "classifier": name,
        "seed": task.seed,
        "settings": study.settings(arm),
    }


def _order(
    study: Study, sets: Sets, task: Task, arm: str, name: str, p: float, lr: float, *, choosing: bool
) -> Training:
    storage = Storage(study.url)
    return Training(
        questions=study.questions,
        seed=task.seed,
        arm=arm,
        set_url=sets.made(arm, task.seed) if arm in ARMS else "",
        classifier=name,
        p=p,
        lr=lr,
        choosing=choosing,
        cache=f"{storage.url}/{FEATURES}" if storage.is_local else "",
        trainings=study.trainings,
    )


class _Trainings:
    """Trainings under way. What is to be done with a result is done in a thread, one at a time."""

    def __init__(self, progress: Progress) -> None:
        resources = ray.cluster_resources()
        self._gpus = 1 if resources.get("GPU", 0) else 0
        # Half of the CPUs are the next expansion's, and two are for Ray's own small tasks: with none left, both wait.
        at_once = int(resources.get("GPU", 0)) or max(1, (int(resources.get("CPU", 1)) - 2) // 2)
        self._pool = ThreadPoolExecutor(at_once)
        self._progress, self._lock = progress, threading.Lock()
        self._open: list[Future[None]] = []
        self._running: set[ray.ObjectRef[dict[str, Any]]] = set()
        self._interrupted = False

    def submit(self, order: Training, then: Callable[[dict[str, Any]], None]) -> None:
        """Raises what one that failed meanwhile raised: hours of sets may lie between an error and the end."""
        self._raise_failed()
        self._open.append(self._pool.submit(self._run, order, then))

    def finish(self) -> None:
        """Wait until all are done. Raises what the first that failed raised."""
        if not self._open:
            return
        done = sum(future.done() for future in self._open)
        self._progress.stage("train", len(self._open) - done, 0, "trainings")
        while True:
            wait(self._open, timeout=1.0)
            now = sum(future.done() for future in self._open)
            if now > done:
                self._progress.advance(now - done)
                done = now
            self._raise_failed()
            if done == len(self._open):
                self._open.clear()
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Wait for those under way after an error, end them when interrupted; the others are not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            with self._lock:
                self._interrupted = True
                for task in self._running:
                    ray.cancel(task, force=True)
        self._pool.shutdown(wait=True)

    def _raise_failed(self) -> None:
        for future in self._open:
            if future.done():
                future.result()

    def _run(self, order: Training, then: Callable[[dict[str, Any]], None]) -> None:
        task = ray.remote(train).options(num_cpus=1, num_gpus=self._gpus, max_retries=2)
        with self._lock:
            if self._interrupted:
                return
            running = task.remote(order)
            self._running.add(running)
        try:
            found = ray.get(running)
        except RayError as error:
            raise our_error(error) or error from None
        finally:
            with self._lock:
                self._running.remove(running)
        with self._lock:
            then(found)
