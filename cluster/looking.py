"""The commands that look at a data set, measure it or write it anew: what each is told, and what it shows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster import jobs
from cluster.arguments import Actors, ConfigFile, Json, Out, Sets, Verbose, names, settings_of
from cluster.show import print_json, print_status, print_verification, say, tell
from diffii.errors import OutputError
from engine.settings import load_config


def status(
    out: Out,
    watched: Annotated[
        bool, typer.Option("--watch", help="Look again every few seconds, until it is complete; Ctrl-C leaves it be.")
    ] = False,
    as_json: Json = False,
) -> None:
    """How far an expansion is, and how fast it gets on, from its output alone: from any machine, without Ray."""
    from engine.status import status as read_status

    def read() -> dict[str, Any]:
        return dataclasses.asdict(read_status(out))

    if watched:
        from cluster.watch import watch

        watch(read, as_json)
    elif as_json:
        print_json(read())
    else:
        print_status(read())


def verify(
    out: Out,
    repair: Annotated[bool, typer.Option("--repair", help="Remove files that belong to nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Check that every planned row is decided and every published byte is right; exit status 0 if so."""
    from engine.verify import verify as check

    found = check(out, mend=repair)
    fields = dataclasses.asdict(found)
    if as_json:
        print_json(fields)
    else:
        print_verification(fields)
    raise typer.Exit(0 if found.ok else 1)


def report(
    out: Out,
    to: Annotated[Path | None, typer.Option(help="Write the page here (and .json beside it), not into OUT.")] = None,
    source: Annotated[str, typer.Option(help="Where the real images are, if not where they were.")] = "",
    embedder: Annotated[str, typer.Option(help="Measure in this vision model's features: a hub id or path.")] = "",
    clip: Annotated[str, typer.Option(help="Also CLIPScore, by this transformers CLIP: a hub id or path.")] = "",
    images: Annotated[int, typer.Option(min=2, help="Synthetic and real images measured, at most.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Another seed measures other images.")] = 0,
    as_json: Json = False,
) -> None:
    """How good the images are: one page with pictures, angles, losses and figures, and the figures as JSON."""
    options = {"source": source, "embedder": embedder, "clip": clip, "images": images, "seed": seed}
    figures = jobs.report(out, to, not as_json, **options)
    if as_json:
        print_json(figures)


def export(
    out: Out,
    destination: Annotated[str, typer.Argument(metavar="DEST", help="An empty or new place, or an earlier export.")],
    format: Annotated[
        str, typer.Option("--format", help="webdataset, mds, imagefolder or parquet; several by commas.")
    ] = "webdataset",
    encoding: Annotated[str, typer.Option(help="png, webp or jpeg, if not as the images are.")] = "",
    quality: Annotated[int | None, typer.Option(help="Of jpeg (95), or of webp, which is lossless without.")] = None,
    include_real: Annotated[bool, typer.Option("--include-real", help="Put the real images in too.")] = False,
    source: Annotated[str, typer.Option(help="Where the real images are, if not where they were.")] = "",
    as_json: Json = False,
) -> None:
    """Write a finished or growing data set in another format. Again: only what is new since."""
    options = {"encoding": encoding, "quality": quality, "include_real": include_real, "source": source}
    made = jobs.export(out, destination, names(format), **options)
    if as_json:
        print_json({"exports": [dataclasses.asdict(copy) for copy in made]})
        return
    for copy in made:
        say(f"{copy.new_rows} of {copy.rows} images are new")
        tell(copy.usage)


def evaluate(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Where results and sets are kept; any fsspec URL.")],
    protocol: Annotated[str, typer.Option(help="A task by name: garments-fewshot, garments-lt, ...")] = "",
    shots: Annotated[int, typer.Option(min=1, help="Training images a class, of a few-shot task.")] = 5,
    imbalance: Annotated[int, typer.Option(min=1, help="Head's share of the tail's, of a long tail.")] = 100,
    data: Annotated[str, typer.Option(help="Where the protocol's data set is unpacked, if it is not garments.")] = "",
    source: Annotated[str, typer.Option(help="Your own images to train on, in place of a protocol.")] = "",
    test: Annotated[str, typer.Option(help="Your own images to measure on.")] = "",
    validation: Annotated[str, typer.Option(help="Your own images to choose settings on.")] = "",
    arms: Annotated[
        str, typer.Option(help="real, mixup, cutmix, and how rows begin: see arm.name.")
    ] = "real,noise,diff-ii",
    classifier: Annotated[
        str, typer.Option(help="scratch, lite0, or transformers models; several by commas.")
    ] = "scratch",
    seeds: Annotated[int, typer.Option(min=1, help="Draws, generations and trainings that are reported.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them; 1000 explores: on validation images.")] = 0,
    trainings: Annotated[int, typer.Option(min=1, help="Networks per arm and seed, averaged.")] = 1,
    tuning_seeds: Annotated[
        int, typer.Option(min=0, help="Seeds to choose p and learning rate on; 0: usual ones.")
    ] = 2,
    p: Annotated[float | None, typer.Option(help="Mixing probability, instead of choosing it.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate, instead of choosing it.")] = None,
    factor: Annotated[float | None, typer.Option(help="Synthetic images per real one.")] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    actors: Actors = None,
    verbose: Verbose = False,
) -> None:
    """Measure what expansion does for a classifier, against controls. What is measured already is kept."""
    from engine.evaluate import Questions, Study

    more = {} if factor is None else {"expansion.factor": factor}
    asked = Study(
        url=study,
        questions=Questions(
            protocol=protocol,
            shots=shots,
            imbalance=imbalance,
            root=data,
            source=source,
            test=test,
            validation=validation,
        ),
        arms=names(arms),
        classifiers=names(classifier),
        seeds=seeds,
        first_seed=first_seed,
        trainings=trainings,
        tuning_seeds=tuning_seeds,
        p=p,
        lr=lr,
        config=load_config(config, sets or (), overrides={**settings_of(actors), **more}),
    )
    jobs.evaluate(asked, verbose)


def replay(
    out: Out,
    sample_id: Annotated[str, typer.Argument(metavar="SAMPLE_ID", help="The column sample_id of a row.")],
    model: Annotated[str | None, typer.Option(help="Where the model is, if not where it was.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write the new image here.")] = None,
    as_json: Json = False,
) -> None:
    """Make one sample again from its recipe; exit status 0 if it is the published image to the bit."""
    from engine.replay import replay as make_again

    found = make_again(out, sample_id, model)
    if save is not None:
        try:
            save.write_bytes(found.image)
        except OSError as error:
            raise OutputError(f"--save {save} cannot be written: {error.strerror}") from error
    if as_json:
        fields = dataclasses.asdict(found) | {"identical": found.identical}
        print_json({name: value for name, value in fields.items() if name != "image"})
    else:
        said = "identical to the bit" if found.identical else "not the published image"
        said = said if found.published_sha256 else "it was never published"
        trouble = f" ({found.reason})" if found.reason else ""
        tell(f"{found.class_name} {found.ordinal}: {found.outcome}{trouble}, {said}")
        tell(found.recipe)
    raise typer.Exit(0 if found.identical else 1)
