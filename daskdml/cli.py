"""The ``daskdml`` command."""

import os
import sys
from pathlib import Path

import click

from daskdml import __version__

_DEFAULT_REPORT = "daskdml-demo.html"


class Refusal(click.ClickException):
    """What the user gave can't be used: one sentence, exit code 2, no traceback."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="daskdml")
def main():
    """scikit-learn estimators that train on data bigger than a machine."""


@main.command()
@click.option("--data", metavar="FILE", help="Your own data: a Parquet or CSV file, a folder of them, or a glob.")
@click.option("--target", metavar="COL", help="The column of --data to predict.")
@click.option(
    "--task",
    type=click.Choice(["auto", "classification", "regression"]),
    default="auto",
    show_default=True,
    help="What --target is; auto: text, booleans and few whole numbers are classes.",
)
@click.option(
    "--report", metavar="PATH", default=_DEFAULT_REPORT, show_default=True, help="Where to write the HTML report."
)
@click.option(
    "--rows",
    type=click.IntRange(min=1000),
    default=1_000_000,
    show_default=True,
    help="Rows to generate; not used with --data.",
)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Worker processes to start.")
def demo(data, target, task, report, rows, workers):
    """Fit real and generated data, or your own, and compare with scikit-learn.

    Runs on this machine, needs no network, and takes about a minute.
    """
    if (data is None) != (target is None):
        given, missing = ("--data", "--target") if target is None else ("--target", "--data")
        raise click.UsageError(f"{given} was given without {missing}; your own data need both.")
    report = _check_report(report)
    # Imported here so that --help and --version answer at once.
    from daskdml.demo.show import print_table, start_clock

    say = start_clock(click.echo)
    try:
        results = _run(data, target, task, report, rows, workers, say)
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
        sys.exit(130)
    print_table(results)
    click.echo(f"\nReport: {report}")


def _run(data, target, task, report, rows, workers, say):
    from daskdml.demo import story, table

    if data is None:
        return story.run_bundled(report, n_rows=rows, n_workers=workers, say=say)
    try:
        return story.run_file(report, data=data, target=target, task=task, n_workers=workers, say=say)
    except (ValueError, TypeError, OSError, ImportError) as error:
        # Nothing but the user's data can be wrong here: say it in the words of whoever refused them.
        raise Refusal(table.first_line(error)) from error


def _check_report(path):
    """Return the report's absolute path, or refuse now what would fail after a minute's work."""
    path = Path(path).expanduser().absolute()
    if path.is_dir():
        raise Refusal(f"The report {path} is a folder; name a file, for example {path / _DEFAULT_REPORT}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(f"The report {path} can't be written: {error.strerror}.") from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise Refusal(f"The report {path} can't be written: permission denied; name another place with --report.")
    return path


if __name__ == "__main__":
    main()
