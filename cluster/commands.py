"""`diffii cluster ...`: files for a cluster, and runs on one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cluster.show import print_json, say, tell
from diffii.errors import ClusterError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Files for a cluster of your own, and runs on it.",
)

Address = Annotated[
    str,
    typer.Option(help="The cluster's dashboard, through a tunnel.", envvar="RAY_API_SERVER_ADDRESS"),
]
HERE = "http://127.0.0.1:8265"
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of a run's settings.")]
Name = Annotated[
    str | None, typer.Argument(metavar="RUN", help="As submit named it; by default the newest of --config.")
]


@app.command()
def render(
    provider: Annotated[
        Literal["aws", "gcp", "azure", "kuberay", "slurm"], typer.Argument(metavar="aws|gcp|azure|kuberay|slurm")
    ],
    spec: Annotated[Path, typer.Option("--spec", help="The specification; cluster/README.md shows one of each kind.")],
    to: Annotated[Path | None, typer.Option(help="Folder for the files; by default NAME-PROVIDER.")] = None,
) -> None:
    """Write the files of a cluster: its machines, the image they run, and the run's settings."""
    from cluster.render.files import render as render_files
    from cluster.render.files import write
    from cluster.render.words import costs, next_steps
    from cluster.spec_file import load_spec

    found = load_spec(spec)
    folder = to or Path(f"{found.name}-{provider}")
    files = render_files(found, provider)
    write(files, folder)
    for name in files:
        tell(str(folder / name))
    say(costs(found))
    for line in next_steps(found, provider, folder):
        say(line)


@app.command()
def dashboard(
    to: Annotated[Path | None, typer.Option(help="Write it here; by default it is printed.")] = None,
) -> None:
    """A Grafana dashboard of the runs of a cluster, over what Prometheus scrapes from Ray; to be imported as it is."""
    from cluster.grafana import dashboard as text

    if to is None:
        print(text(), end="")
        return
    try:
        to.write_text(text(), encoding="utf-8")
    except OSError as error:
        raise ClusterError(f"{to} cannot be written: {error.strerror or error}") from error
    tell(str(to))


@app.command()
def submit(
    config: Annotated[Path, typer.Option("--config", help="The run's settings, with source.url and output.url.")],
    address: Address = HERE,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting more.")] = None,
    code: Annotated[
        Path | None, typer.Option(help="Run this checkout of diffii and not the image's; for development.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow it.")] = False,
) -> None:
    """Expand on a cluster, and follow it. Ctrl-C leaves it running; the same command again goes on where it ended."""
    from cluster.follow import follow
    from cluster.submit import earlier
    from cluster.submit import submit as submit_run
    from engine.run_id import identity_digest
    from engine.settings import load_config

    settings = load_config(config, sets or ())
    jobs = _jobs(address)
    before = earlier(jobs, settings)
    name = submit_run(jobs, settings, code)
    again = f"; {before[-1].name} has {before[-1].state}, this goes on from there" if before else ""
    say(f"{name} is submitted{again}")
    if before and before[-1].settings != identity_digest(settings):
        say("its settings are others than then: where the data set has begun, the run will say which may not change")
    if detach:
        _how_to_go_on(name, address)
        return
    _followed(follow(jobs, name, tell), name, address)


@app.command()
def status(
    run: Name = None,
    config: ConfigFile = None,
    address: Address = HERE,
    followed: Annotated[bool, typer.Option("--follow", help="Show what it says until it ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The runs of a cluster, or one of them. How far it is says `diffii status OUT`."""
    from cluster.follow import follow
    from cluster.submit import chosen, known

    jobs = _jobs(address)
    every = run is None and config is None and not followed
    found = known(jobs) if every else [chosen(jobs, run, config)]
    if as_json:
        print_json({"runs": [attempt.as_json() for attempt in found]})
    else:
        for attempt in found:
            tell(str(attempt))
        if not found:
            say("no run of diffii was submitted to this cluster")
    if followed:
        _followed(follow(jobs, found[0].name, tell), found[0].name, address)


@app.command()
def stop(run: Name = None, config: ConfigFile = None, address: Address = HERE) -> None:
    """Stop a run. What is committed stays; the same submit again goes on from there."""
    from cluster.submit import chosen, stop_run

    jobs = _jobs(address)
    attempt = chosen(jobs, run, config)
    say(stop_run(jobs, attempt))


def _followed(ended: str | None, name: str, address: str) -> None:
    """What comes of following: None when the user left."""
    if ended is None:
        say(f"{name} goes on without you")
        _how_to_go_on(name, address)
        return
    say(f"{name}: {ended}")
    raise typer.Exit(0 if ended == "succeeded" else 1)


def _how_to_go_on(name: str, address: str) -> None:
    where = "" if address == HERE else f" --address {address}"
    say(f"follow it: diffii cluster status {name} --follow{where}")
    say(f"stop it:   diffii cluster stop {name}{where}")


def _jobs(address: str) -> Any:
    from cluster.access import connect

    return connect(address)


def doctor(
    address: Annotated[
        str,
        typer.Option(
            help="A cluster's dashboard; or auto: the cluster that this machine is part of; else this machine."
        ),
    ] = "",
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at what a run needs, before it costs anything; exit status 1 if something is wrong."""
    from cluster.doctor.examine import by_job, here, in_ray
    from engine.settings import load_config

    settings = load_config(config) if config is not None else None
    if address == "auto":
        from cluster.join import joined_ray

        with joined_ray():
            found = in_ray(settings)
    else:
        found = by_job(address, settings) if address else here(settings)
    if as_json:
        print_json({"findings": [dataclasses.asdict(finding) for finding in found]})
    else:
        for finding in found:
            tell(str(finding))
        if settings is None:
            say("with --config FILE storage, model and attention are looked at, too")
    raise typer.Exit(0 if all(finding.ok for finding in found) else 1)
