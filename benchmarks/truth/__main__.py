"""Are the method's claims true in our hands? One command a table.

python -m benchmarks.truth --data DATA --model MODEL study

Run from the root of the repository. Without options a table is made as it stands in the documentation. Fine-tunes are
kept by content: stopped, the same command goes on. Numbers go to ``results/`` as JSON, progress to stdout;
``first-order``, ``sizes``, ``boosting``, ``sources`` and ``ablations`` add rows to their table, the others make it
anew. ``python -m benchmarks.truth.page`` puts them into the documentation.
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.truth.names import BASES
from benchmarks.truth.setting import DATASETS, RESULTS, Setting

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
Seeds = Annotated[int, typer.Option(help="Fine-tunes of each subset; members of each kind.", min=2)]
Subsets = Annotated[int, typer.Option(help="Random subsets of equal size.")]
TARGETS = "wic,sst2,tweet_offensive,sms_spam,tweet_emotion,tweet_irony"
SUBSETS, SEEDS, PARTITIONS = 69, 4, 3


@app.callback()
def common(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="Folder with one folder a dataset.")],
    model: Annotated[Path, typer.Option(help="Base model in transformers layout.")],
    root: Annotated[Path, typer.Option(help="Where runs work; what is finished there is reused.")] = Path(
        ".loraloom/truth"
    ),
    out: Annotated[Path, typer.Option(help="Where the numbers go, as JSON.")] = RESULTS,
    datasets: Annotated[str, typer.Option(help="Names, with commas between.")] = DATASETS,
    train: Annotated[int, typer.Option(help="Training rows a dataset, at most.")] = 200,
    validation: Annotated[int, typer.Option(help="Validation rows a dataset, at most.")] = 150,
    test: Annotated[int, typer.Option(help="Test rows a dataset, at most.")] = 300,
    epochs: Annotated[int, typer.Option(help="Epochs of a fine-tune, at most.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of a fine-tune.")] = 1e-3,
    warm_start: Annotated[float, typer.Option(help="Epochs of the warm start, and of the look-ahead.")] = 1.0,
    quantization: Annotated[str, typer.Option(help="nf4, or none.")] = "none",
) -> None:
    """What all tables have in common."""
    context.obj = Setting(
        data=data, model=model, root=root, out=out, datasets=tuple(datasets.split(",")), train=train,
        validation=validation, test=test, epochs=epochs, learning_rate=learning_rate, warm_start=warm_start,
        quantization=quantization,
    )  # fmt: skip


@app.command()
def first_order(
    context: typer.Context,
    bases: Annotated[str, typer.Option(help="Arithmetic of the base, not --quantization.")] = ",".join(BASES),
) -> None:
    """First-order error of the margin by distance, by arithmetic of the base."""
    from benchmarks.truth.first_order import first_order

    first_order(context.obj, bases.split(","))


@app.command()
def study(
    context: typer.Context,
    table: Annotated[str, typer.Option(help="Name of the table; `pilot` for one.")] = "study",
    subsets: Subsets = SUBSETS,
    pairs: Annotated[int, typer.Option(help="Random pairs.")] = 0,
    partitions: Annotated[int, typer.Option(help="Random partitions of the chosen one's shape.")] = PARTITIONS,
    seeds: Seeds = SEEDS,
) -> None:
    """Estimates against real fine-tunes: ranking, errors, partitions, cost."""
    from benchmarks.truth.study import study

    study(context.obj, table, subsets=subsets, pairs=pairs, partitions=partitions, seeds=seeds)


@app.command()
def sizes(
    context: typer.Context,
    of: Annotated[list[int] | None, typer.Option(help="Datasets in a subset.", min=2)] = None,
    each: Annotated[int, typer.Option(help="Random subsets of a size that hold a dataset, about.")] = 8,
    seeds: Seeds = 2,
) -> None:
    """Estimates against real fine-tunes of subsets of other sizes than `study`'s."""
    from benchmarks.truth.sizes import SIZES, sizes

    sizes(context.obj, of or SIZES, each, seeds)


@app.command()
def controls(context: typer.Context, seeds: Seeds = 6) -> None:
    """The ensemble against its controls, at stated FLOPs."""
    from benchmarks.truth.controls import controls

    controls(context.obj, seeds)


@app.command()
def recipes(
    context: typer.Context,
    of: Annotated[
        list[str] | None,
        typer.Option(
            help="warm start's epochs:groups' epochs:rate:groups[:rank]. The table will hold these, and the common "
            "options' own recipe, which they are compared with."
        ),
    ] = None,
    seeds: Seeds = 3,
) -> None:
    """How to divide the epochs between warm start and groups, at which rate and rank."""
    from benchmarks.truth.recipes import RECIPES, Recipe, recipes

    recipes(context.obj, [Recipe.parse(text) for text in of or RECIPES], seeds)


@app.command()
def boosting(context: typer.Context, seeds: Seeds = 3) -> None:
    """Boosting's first step on training and test rows."""
    from benchmarks.truth.boosting import boosting

    boosting(context.obj, seeds)


@app.command()
def sources(
    context: typer.Context,
    targets: Annotated[str, typer.Option(help="Names, with commas between.")] = TARGETS,
    seeds: Seeds = 3,
) -> None:
    """Data sources chosen for a target, fine-tuned."""
    from benchmarks.truth.sources import sources

    sources(context.obj, targets.split(","), seeds)


@app.command()
def second_model(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="To write it to.")],
    steps: Annotated[int, typer.Option(help="Batches of the model's pretraining.")] = 1000,
) -> None:
    """Make a GPT-2 that any table can be asked of: ``--model FOLDER``, and ``--out`` for its numbers."""
    from benchmarks.truth.second_model import make

    if folder.exists():
        raise typer.BadParameter(f"{folder} exists; name another, or take that one for --model")
    make(context.obj.data, context.obj.model, folder, steps)


@app.command()
def ablations(
    context: typer.Context,
    only: Annotated[str, typer.Option(help="Settings, with commas between; all by default.")] = "",
    subsets: Subsets = SUBSETS,
    seeds: Seeds = SEEDS,
) -> None:
    """What each choice gains for the estimates and costs."""
    from benchmarks.truth.ablations import ablations

    ablations(context.obj, [name for name in only.split(",") if name], subsets, seeds)


@app.command()
def beginnings(context: typer.Context, seeds: Seeds = 3) -> None:
    """Adapters from theta*, from the point ahead, and from the surrogate's own step."""
    from benchmarks.truth.beginnings import beginnings

    beginnings(context.obj, seeds)


@app.command()
def affinities(
    context: typer.Context, draws: Annotated[int, typer.Option(help="Samples of subsets of each size.")] = 5
) -> None:
    """What groups made of one or another affinity would lose; no fine-tune is made."""
    from benchmarks.truth.affinities import affinities

    affinities(context.obj, draws)


@app.command()
def calibration(context: typer.Context) -> None:
    """What a few real fine-tunes would gain for the estimates of `study`."""
    from benchmarks.truth.calibration import calibration

    calibration(context.obj)


if __name__ == "__main__":
    app()
