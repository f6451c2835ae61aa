"""The partition as the other steps see it: groups of names, and everything that speaks for or against them."""

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class CurvePoint:
    """The best partition into ``m`` groups: loss / entropy, mean over datasets, and the paired error to the best m."""

    m: int
    loss: float
    standard_error: float


@dataclass(frozen=True)
class Expected:
    """Loss / entropy, mean over datasets, of this partition, of one group, of a group each. Not cross-fitted."""

    chosen: float
    one: float
    each: float


@dataclass(frozen=True)
class Gain:
    """How much lower than one group's the loss is, chosen on one half of the rows and measured on the other."""

    mean: float
    standard_error: float


@dataclass(frozen=True)
class Alternative:
    """A partition considered: ``worse_by`` is its loss minus the chosen one's, with the paired standard error."""

    groups: list[list[str]]
    loss: float
    worse_by: float
    standard_error: float


@dataclass(frozen=True)
class AffinityFit:
    """What the affinity matrix, normalised, says: about ``<T, X>``, not about losses.

    ``objective`` is ``<T, X>`` of the chosen groups, ``bound`` what no partition into as many groups exceeds, ``gap``
    their difference. ``affinity_groups`` is what rounding the relaxation gives,
    and ``affinity_objective`` its ``<T, X>``.
    """

    objective: float
    bound: float
    gap: float
    affinity_groups: list[list[str]]
    affinity_objective: float


@dataclass(frozen=True)
class Partition:
    """Groups of datasets, by name, each in the order of ``names``.

    ``scored`` counts the groups whose loss was looked at; ``complete`` is false where a search ran out of budget.
    ``co_membership`` [n, n] is None unless every subset was estimated. ``kept_champion``: these are its groups.
    """

    names: list[str]
    groups: list[list[str]]
    method: Literal["exact", "search"]
    scored: int
    complete: bool
    curve: list[CurvePoint]
    expected: Expected
    gain: Gain
    affinity: AffinityFit
    co_membership: list[list[float]] | None
    kept_champion: bool
    alternatives: list[Alternative]

    def to_json(self) -> dict[str, Any]:
        """As a dictionary ``json.dumps`` takes; the entries of ``affinity`` stand beside the others."""
        everything = asdict(self)
        fit: dict[str, Any] = everything.pop("affinity")
        return {**everything, **fit}
