"""``python -m benchmarks [NAME ...] [--full] [--rows N]``; without a name: the short form of the main ones."""

import importlib
import time
from pathlib import Path

import click

from benchmarks.report import RESULTS

# name: (function, is it part of the short form)
BENCHMARKS = {
    "one_pass": ("benchmarks.kernels.one_pass:run", True),
    "logistic": ("benchmarks.estimators.logistic:run", True),
    "least_squares": ("benchmarks.estimators.least_squares:run", True),
    "memory": ("benchmarks.estimators.memory:run", True),
    "cluster": ("benchmarks.estimators.cluster:run", True),
    "ranks": ("benchmarks.engine.ranks:measure", False),
    "imports": ("benchmarks.imports:run", True),
    "plan": ("benchmarks.estimators.plan:run", False),
    "plan_trees": ("benchmarks.estimators.plan_trees:run", False),
    "wide": ("benchmarks.estimators.logistic:run_wide", False),
    "multinomial": ("benchmarks.estimators.logistic:run_multinomial", False),
    "sparse": ("benchmarks.estimators.sparse:run", False),
    "boosting": ("benchmarks.estimators.boosting:run", False),
    "boosting_classes": ("benchmarks.estimators.boosting:run_classes", False),
    "boosting_sparse": ("benchmarks.estimators.boosting_sparse:run", False),
    "boosting_compile": ("benchmarks.estimators.boosting:run_compile", False),
    "boosting_cluster": ("benchmarks.estimators.boosting_cluster:run", False),
    "boosting_adult": ("benchmarks.estimators.boosting_adult:run", False),
    "forest": ("benchmarks.estimators.forest:run", False),
    "boosting_scaling": ("benchmarks.engine.boosting_scaling:measure", False),
    "boosting_larger": ("benchmarks.estimators.larger:run", False),
    "networks": ("benchmarks.estimators.networks:run", False),
    "networks_cluster": ("benchmarks.estimators.networks_cluster:run", False),
    "networks_sharded": ("benchmarks.estimators.networks_sharded:run", False),
    "codecs": ("benchmarks.estimators.codecs:run", False),
    "codec_bytes": ("benchmarks.estimators.codec_bytes:run", False),
    "stragglers": ("benchmarks.engine.network_strategies:stragglers", False),
    "table_speed": ("benchmarks.engine.table_speed:speed", False),
    "staleness": ("benchmarks.engine.staleness:staleness", False),
    "logistic_server": ("benchmarks.engine.logistic_server:measure", False),
    "sparse_server": ("benchmarks.estimators.sparse_server:run", False),
    "platforms": ("benchmarks.engine.platforms:run", False),
    "networks_scaling": ("benchmarks.engine.networks_scaling:scaling", False),
    "out_of_core": ("benchmarks.out_of_core:run", False),
    "faults": ("benchmarks.engine.faults:measure", False),
    "gpu": ("benchmarks.gpu.logistic:run", False),
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*BENCHMARKS, "all", "table"]))
@click.option("--full", is_flag=True, help="All solvers and forms of the peers, more repetitions; what is kept.")
@click.option("--rows", type=click.IntRange(min=1000), help="Rows instead of the size that the limits are about.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder for the CSVs and pictures.")
@click.option("--only", multiple=True, help="Of codecs: what has this in 'problem, solver, strategy'; again for more.")
@click.option("--seeds", type=click.IntRange(min=1), help="Of codecs, in --full: the mean of so many.")
def main(names, full, rows, results, only, seeds):
    """Run benchmarks, print what each must show, keep a CSV and a picture.

    Without NAMES: the short form of the main ones, under five minutes on two quiet cores. "all" is every one; "table"
    writes the tables of docs/benchmarks.md from the CSVs of full runs.
    """
    if "table" in names:
        from benchmarks.pages import write_tables

        write_tables()
        return
    chosen = list(BENCHMARKS) if "all" in names else list(names) or [n for n, (_, short) in BENCHMARKS.items() if short]
    options = {name: value for name, value in (("only", only), ("seeds", seeds)) if value}
    if options and chosen != ["codecs"]:
        name = next(iter(options))
        raise click.UsageError(f"--{name} is for codecs alone: python -m benchmarks codecs --only OneBit")
    for name in chosen:
        module, _, function = BENCHMARKS[name][0].partition(":")
        print(f"{name}", flush=True)
        start = time.perf_counter()
        sheet = getattr(importlib.import_module(module), function)(rows=rows, full=full, **options)
        path = sheet.save(results / "some" if options else _folder(results, full, rows))
        sheet.show()
        print(f"{name}: {time.perf_counter() - start:.0f} s, {path}", flush=True)


def _folder(results, full, rows):
    """Only full runs at full size stand in the results folder itself."""
    if rows:
        return results / f"{rows}-rows"
    return results if full else results / "short"


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
