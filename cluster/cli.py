"""The command line: `diffii <command>`. It turns errors into one clear line."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cluster import commands, looking, making
from cluster.ending import Terminated, heed_sigterm
from cluster.show import say
from diffii import __version__
from diffii.errors import DiffiiError


class Commands(TyperGroup):
    """Says what it means for a run that it was interrupted, where typer would end without a word."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            say("\nstopped; the same command goes on from here")
            told = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
            raise typer.Exit(128 + told) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    making.demo,
    making.plan,
    making.expand,
    making.learn,
    making.caption,
    looking.status,
    looking.verify,
    looking.report,
    looking.export,
    looking.evaluate,
    looking.replay,
    commands.doctor,
):
    app.command()(command)
app.add_typer(commands.app, name="cluster")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn a small labelled image data set into a larger one (Diff-II)."""


def main() -> None:
    """Entry point of the console script: user errors are one line on standard error and exit status 2."""
    heed_sigterm()
    try:
        app()
    except DiffiiError as error:
        say(f"error: {error}")
        sys.exit(2)


if __name__ == "__main__":
    main()
