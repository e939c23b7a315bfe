"""The batch script: bash reads it, and it runs, with Slurm's commands played by small scripts, to the driver's end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.render import render
from diffii.errors import ConfigError
from tests.cluster.specs import birds

SIF = {"image": "/shared/birds.sif", "slurm": {"partition": "gpu", "account": "lab"}, "output": "/data/birds-x5"}


def script(**changed: object) -> str:
    return render(birds("slurm", **changed), "slurm")["job.sbatch"]


@pytest.mark.parametrize("changed", [{}, SIF, {"min_workers": 0, "max_workers": 1}], ids=["environment", "sif", "one"])
def test_bash_reads_it(changed: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "job.sbatch"
    path.write_text(script(**changed), encoding="utf-8")
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    # Its package puts it beside this Python, which need not be on the PATH.
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert checker is not None
    done = subprocess.run([checker, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_its_orders_to_slurm() -> None:
    orders = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", script(), re.MULTILINE))
    assert orders["nodes"] == "1-8" and orders["gpus-per-node"] == "L4:1" and orders["ntasks-per-node"] == "1"
    assert "requeue" in orders and orders["signal"] == "B:USR1@120" and "account" not in orders
    text = script(**SIF)
    assert "#SBATCH --account=lab\n" in text
    assert "apptainer exec --nv --bind '/data' /shared/birds.sif" in text
    assert "SRUN_CPUS_PER_TASK=8" in text
    assert "HF_HOME" not in text, "users have a cache of their own"
    assert "apptainer exec --nv /shared/birds.sif" in script(**SIF | {"output": "s3://bucket/birds-x5"})
    text = script(**SIF, model_cache="/shared/models")
    assert "export HF_HOME=/shared/models DIFFII_CACHE=/shared/models\n" in text
    assert "apptainer exec --nv --bind '/data,/shared' /shared/birds.sif" in text


def test_an_image_of_docker_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"image=registry.example.org/birds:0.1.0: Slurm runs a \.sif file"):
        render(birds("slurm", slurm={"partition": "gpu"}), "slurm")


PLAYED = {
    "scontrol": '[ "$1" = requeue ] && { echo "requeued $2"; exit; }; echo localhost',
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "ray": 'all="$*"; port=${all#*--port=}; exec python3 -m http.server --bind 127.0.0.1 "${port%% *}"',
    "python": 'token=$RAY_AUTH_TOKEN_PATH; ls -l "$token" | cut -c1-10; wc -c < "$token"; '
    'echo "driver $RAY_ADDRESS $*"; exec sleep "${WORK:-0}"',
}


@pytest.mark.parametrize("preempted", [False, True])
def test_it_runs_to_the_drivers_end_and_leaves_nothing(tmp_path: Path, preempted: bool) -> None:
    commands, home = tmp_path / "environment" / "bin", tmp_path / "home"
    commands.mkdir(parents=True)
    home.mkdir()
    for name, text in PLAYED.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (commands / name).chmod(0o755)
    path, log = tmp_path / "job.sbatch", tmp_path / "log"
    text = script(slurm={"partition": "gpu", "environment": str(tmp_path / "environment")})
    path.write_text(text, encoding="utf-8")
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": "1",
        "WORK": "60" if preempted else "0",
    }
    with log.open("w") as out:
        job = subprocess.Popen(["bash", str(path)], env=environment, stdout=out, stderr=out)
        deadline = time.monotonic() + 60
        while "driver" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        if preempted:
            job.send_signal(signal.SIGUSR1)
        assert job.wait(60) == 0
    said = log.read_text()
    assert "-rw-------\n64\n" in said
    assert re.search(
        r"^driver 127\.0\.0\.1:\d+ -m cluster.cli expand --config run.yaml --address auto$", said, re.MULTILINE
    )
    assert ("requeued" in said) is preempted
    assert list((home / ".diffii").iterdir()) == []
