"""How far from its point the first-order margin holds, by arithmetic of the base: full precision, bfloat16, nf4.

No subset is fine-tuned for it: the adapter moves along the surrogate's own solutions (see the step `linearity`).
"""

from benchmarks.truth import setting
from benchmarks.truth.names import BASES
from benchmarks.truth.setting import Setting, note, refuse_unknown
from benchmarks.truth.steps import run_until
from components.artifacts import load
from components.object_store import LocalStore

DISTANCES = [0.0005, 0.001, 0.002, 0.005, 0.01]


def first_order(to: Setting, bases: list[str]) -> None:
    """Measure the error with every base, and keep a row of each as it is found.

    Raises:
        typer.BadParameter: a base is unknown.
    """
    refuse_unknown("bases", bases, BASES)
    configs = {name: to.config(model=BASES[name], validation={"distances": DISTANCES}) for name in bases}
    to.refuse_to_mix("first_order")
    for name, config in configs.items():
        note(name)
        summary, seconds = run_until(config, to.root, "linearity")
        facts = load(LocalStore(to.root.resolve() / "store"), setting.keys_of(summary)["linearity"]).facts
        to.add("first_order", name, {**setting.about(config, summary, seconds), **facts})
