"""Runs as Ray jobs: one at a time for an output, each attempt under a name of its own.

A run's name follows from its output (`engine.run_id`); an attempt's is that and a number. Ray refuses a name that was
used, which makes the number a lock: of two who submit at once, one is refused. The number is counted up, and no record
is deleted to use its name again, because Ray says that this is not to be done.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.access import answering
from cluster.run_file import RUN_FILE, refuse_local, to_yaml
from diffii.errors import ClusterError, ConfigError
from engine.config import Config
from engine.run_id import identity_digest, run_id
from engine.settings import load_config

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

RUN, OUTPUT, SETTINGS = "diffii_run", "diffii_output", "diffii_settings"
"""Keys of a job's metadata."""
PACKAGES = ("diffii", "actors", "engine", "cluster")
STOP_SECONDS = 60.0
ENDED = frozenset({"succeeded", "failed", "stopped"})
_ENDED_AS = {"succeeded": "has succeeded", "failed": "has failed", "stopped": "is stopped"}
ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


@dataclass(frozen=True)
class Attempt:
    """One job of a run, on the cluster that was asked."""

    name: str
    run: str
    output: str
    settings: str
    state: str
    """`pending`, `running`, `succeeded`, `failed` or `stopped`."""
    began: float
    """Seconds since 1970; 0 when Ray does not say."""

    @property
    def number(self) -> int:
        return int(self.name.rpartition("-")[2])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        began = datetime.fromtimestamp(self.began).strftime("%Y-%m-%d %H:%M") if self.began else ""
        return f"{self.name}  {self.state}  {began}  {self.output}"


def known(jobs: JobSubmissionClient) -> list[Attempt]:
    """Every attempt that this cluster remembers, the oldest first. Raises ClusterError."""
    with answering(jobs._address):
        found = jobs.list_jobs()
    attempts = [
        Attempt(
            name=job.submission_id or "",
            run=(job.metadata or {})[RUN],
            output=(job.metadata or {}).get(OUTPUT, ""),
            settings=(job.metadata or {}).get(SETTINGS, ""),
            state=job.status.value.lower(),
            began=(job.start_time or 0) / 1000,
        )
        for job in found
        if RUN in (job.metadata or {})
    ]
    return sorted(attempts, key=lambda attempt: (attempt.began, attempt.number))


def earlier(jobs: JobSubmissionClient, config: Config) -> list[Attempt]:
    """The attempts at this output, the oldest first. Raises ClusterError."""
    return [attempt for attempt in known(jobs) if attempt.run == run_id(config)]


def submit(jobs: JobSubmissionClient, config: Config, code: Path | None = None) -> str:
    """Begin the next attempt at `output.url`; gives its name. `code` is a checkout to run in place of the image's.

    Raises ConfigError for a place that a cluster does not see, ClusterError when a driver is at work on the output.
    """
    for key, value in (("source.url", config.source.url), ("output.url", config.output.url)):
        if not value:
            raise ConfigError(f"{key} is missing: put it in the file, or give --set {key}=URL")
    refuse_local(config)
    before = earlier(jobs, config)
    for attempt in before:
        if attempt.state not in ENDED:
            raise ClusterError(
                f"{attempt.name} is at work on {attempt.output} ({attempt.state}), and one driver is enough; follow: "
                f"diffii cluster status {attempt.name} --follow; stop: diffii cluster stop {attempt.name}"
            )
    run = run_id(config)
    name = f"{run}-{max((attempt.number for attempt in before), default=0) + 1}"
    with tempfile.TemporaryDirectory() as folder:
        _pack(Path(folder), config, code)
        with answering(jobs._address):
            return jobs.submit_job(
                entrypoint=f"python -m cluster.cli expand --config {RUN_FILE} --address auto",
                submission_id=name,
                # The settings travel as a file: a command line has no room for a thousand class names.
                runtime_env={"working_dir": folder, "env_vars": dict(ENVIRONMENT)},
                metadata={RUN: run, OUTPUT: config.output.url, SETTINGS: identity_digest(config)},
            )


def _pack(folder: Path, config: Config, code: Path | None) -> None:
    (folder / RUN_FILE).write_text(to_yaml(config), encoding="utf-8")
    for package in PACKAGES if code is not None else ():
        assert code is not None
        if not (code / package).is_dir():
            raise ConfigError(f"--code {code}: is no checkout of diffii (no {package}/ in it)")
        shutil.copytree(code / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))


def chosen(jobs: JobSubmissionClient, run: str | None, config: Path | None) -> Attempt:
    """The attempt of this name; of a run's name, or of a file of settings, the newest. Raises ClusterError."""
    attempts = known(jobs)
    wanted = run_id(load_config(config)) if run is None and config is not None else run
    if wanted is not None:
        attempts = [attempt for attempt in attempts if wanted in (attempt.name, attempt.run)]
    if not attempts:
        raise ClusterError(f"this cluster knows no run {wanted or 'of diffii'}; diffii cluster status lists them")
    if wanted is None and len({attempt.run for attempt in attempts}) > 1:
        raise ClusterError(f"which run? {', '.join(dict.fromkeys(attempt.run for attempt in attempts))}")
    return attempts[-1]


def stop_run(jobs: JobSubmissionClient, attempt: Attempt) -> str:
    """Stop an attempt and wait for its end; says what came of it. Raises ClusterError."""
    if attempt.state in ENDED:
        return f"{attempt.name} {_ENDED_AS[attempt.state]}: nothing to stop"
    with answering(jobs._address):
        jobs.stop_job(attempt.name)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            state = jobs.get_job_status(attempt.name).value.lower()
            if state in ENDED:
                return f"{attempt.name} {_ENDED_AS[state]}; the same submit goes on from there"
            time.sleep(0.5)
    raise ClusterError(
        f"{attempt.name} did not end within {STOP_SECONDS:.0f} s; diffii cluster status says when it has"
    )
