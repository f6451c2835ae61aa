"""The ensemble's weights: one row of W and a temperature per dataset, fitted on its validation logits.

For one dataset, with ``z*`` the logits at theta* and ``D_k = z_k - z*`` what adapter k adds to them, weights w and a
temperature T >= 1 are

    argmin over simplex and T of   mean cross-entropy of (z* + sum_k w_k D_k) / T  +  strength * (1 - w_first) / T

Adapters fine-tuned on few rows are surer than they are right. Without T the weights would mend that, and prefer
adapters that know less to adapters that know more: mixing several makes an answer less sure. The problem stays convex:
``u = w / T`` is non-negative and sums to at most one, and what is left, ``1 - sum u``, is the share of one member more,
whose logits are all zero. So ``u`` and that share lie on a simplex of m + 1 corners.

The prior is linear on purpose. A quadratic pull towards the dataset's first choice only ever shrinks the other weights,
so every adapter would have to be run for every dataset. The linear one has a kink at the vertex of the simplex: from a
finite strength on, the solution is exactly the first choice alone. Its price: strength has a unit (nats a row for
giving up the first choice), so one grid serves all datasets only because cross-entropy is in nats too.

The problem is convex and has a handful of unknowns, so it is solved exactly: Newton's method, each step a quadratic
programme over the simplex, until the Frank-Wolfe duality gap is below ``GAP``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import logsumexp

Array = NDArray[np.float64]

STRENGTHS = (float("inf"), 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0)
FOLDS = 5
GAP = 1e-8
MAX_STEPS = 200
NEGLIGIBLE = 1e-6  # a share of the undecided member that is rounding
HOTTEST = 100.0  # temperature at which answers are all but alike; which label is likeliest is still told
DAMPING = 1e-7  # added to the Hessian: adapters that agree leave flat directions. It moves no fixed point.
ROUNDING = 1e-14  # of the loss, relative: near the minimum a step gains less than the loss can show


@dataclass(frozen=True)
class WeightRow:
    """One dataset's weights.

    ``weights [m]`` are non-negative and sum to one; ``temperature`` is in 1 .. ``HOTTEST``. ``strength`` is the
    prior's, in nats; infinite: first choice only. ``loss_before`` is the validation cross-entropy (nats a row) of the
    first choice alone at temperature 1; ``loss_after`` that of the weighted sum at its temperature, every row scored by
    what was fitted without its fold. Their difference is what weights and temperature gain together; the strength was
    chosen by the latter, so it flatters by what the best of ``len(STRENGTHS)`` gains by luck.
    """

    weights: Array
    temperature: float
    strength: float
    loss_before: float
    loss_after: float


def fit_weights(start_logits: Array, increments: Array, label: NDArray[np.int64], first: int, seed: int) -> WeightRow:
    """Fit one dataset's row of W and its temperature, the prior's strength by 5-fold cross-validation.

    Args:
        start_logits: ``z*``, ``[N, C]``.
        increments: ``z_k - z*`` of each of the m members (boosters included), ``[m, N, C]``.
        label: the right answers, ``[N]``, in ``0 .. C - 1``.
        first: the member that answers alone unless the others are worth it.
        seed: of the folds.

    With fewer rows than folds nothing can be learnt from them: the row is then the first choice's, at temperature 1.

    Raises:
        ValueError: shapes that do not fit each other, a label out of range, or logits that are not finite.
    """
    offset, slopes = _against_label(start_logits, increments, label)
    undecided = -offset[:, :, None]  # one member more, the last: it answers with all labels alike
    slopes = np.concatenate([slopes, undecided], axis=2)
    rows, count = len(label), len(increments)
    if not 0 <= first < count:
        raise ValueError(f"first is {first}, but there are {count} members")
    vertex = np.eye(count)[first]
    before = float(_row_losses(offset, slopes, np.append(vertex, 0.0)).mean())
    if rows < FOLDS:
        return WeightRow(vertex, 1.0, float("inf"), before, before)
    strengths = STRENGTHS if count > 1 else STRENGTHS[:1]
    fold = np.random.default_rng(seed).permutation(rows) % FOLDS
    held_out = np.array([_held_out_losses(offset, slopes, first, strengths, fold == k) for k in range(FOLDS)]).sum(0)
    best = int(np.argmin(held_out))  # the first of equals: the strongest prior
    shares = _path(offset, slopes, first, strengths[: best + 1])[-1][:-1]
    total = float(shares.sum())
    weights = shares / total if total > 0 else vertex
    temperature = 1 / max(total, 1 / HOTTEST) if total < 1 - NEGLIGIBLE else 1.0
    return WeightRow(weights, temperature, strengths[best], before, float(held_out[best] / rows))


def solve_simplex(offset: Array, slopes: Array, prior: Array, start: Array) -> Array:
    """Minimise ``mean_n logsumexp_c(offset + slopes @ w) + prior @ w`` over the simplex.

    Args:
        offset: ``[N, C]``.
        slopes: ``[N, C, m]``.
        prior: ``[m]``.
        start: a feasible ``w [m]`` to begin at.

    Returns:
        ``w [m]``; its objective is within ``GAP``, relative above one nat, of the least: ``g.(w - v)``, at its
        largest over the vertices v, bounds the distance of a convex function from its minimum (Frank and Wolfe, 1956).

    Raises:
        ArithmeticError: the gap is still open after ``MAX_STEPS`` steps.
    """
    weights = start
    for _ in range(MAX_STEPS):
        value, gradient, hessian = _derivatives(offset, slopes, weights)
        value, gradient = value + float(prior @ weights), gradient + prior
        if gradient @ weights - gradient.min() <= GAP * max(1.0, abs(value)):
            return weights
        hessian += DAMPING * (1 + np.trace(hessian)) * np.eye(len(weights))
        direction = _simplex_quadratic(hessian, gradient - hessian @ weights) - weights
        step, slope = 1.0, float(gradient @ direction)
        allowed = value + ROUNDING * (1 + abs(value))
        while step > 1e-10:
            trial = weights + step * direction
            if _row_losses(offset, slopes, trial).mean() + prior @ trial <= allowed + 0.25 * step * slope:
                break
            step /= 2
        weights = weights + step * direction
    raise ArithmeticError(f"the weights' duality gap is still above {GAP} nats after {MAX_STEPS} steps")


def _simplex_quadratic(hessian: Array, linear: Array) -> Array:
    """Minimise ``w'Hw / 2 + c'w`` over the simplex exactly, H positive definite.

    With ``H = L L'`` and ``a = inv(L) c``, the objective on the simplex is, up to a constant, half of ``|B w|^2`` with
    ``B = L' + a 1'``. For ``v = t w`` the least of ``|B v|^2 + (1'v - 1)^2`` over t is ``q / (1 + q)``,
    ``q = |B w|^2``, so non-negative least squares solves it and ``v / sum(v)`` is the answer.
    """
    factor = np.linalg.cholesky(hessian)
    shifted = factor.T + np.linalg.solve(factor, linear - linear.mean())[:, None]
    shifted /= np.linalg.norm(shifted, axis=0).min()
    groups = len(linear)
    solution, _ = nnls(np.vstack([shifted, np.ones(groups)]), np.eye(groups + 1)[-1])
    return np.asarray(solution / solution.sum())


def _against_label(start: Array, increments: Array, label: NDArray[np.int64]) -> tuple[Array, Array]:
    """Logits minus the right answer's: ``offset [N, C]`` and ``slopes [N, C, m]``, cross-entropy their logsumexp."""
    z, added, y = np.asarray(start, np.float64), np.asarray(increments, np.float64), np.asarray(label)
    if z.ndim != 2 or added.ndim != 3 or added.shape[1:] != z.shape or y.shape != z.shape[:1] or not z.size:
        raise ValueError(f"shapes do not fit: start {z.shape}, increments {added.shape}, label {y.shape}")
    if y.min() < 0 or y.max() >= z.shape[1]:
        raise ValueError(f"labels must be in 0 .. {z.shape[1] - 1}, found {y.min()} .. {y.max()}")
    if not (np.isfinite(z).all() and np.isfinite(added).all()):
        raise ValueError("logits must be finite")
    n = np.arange(len(y))
    return z - z[n, y][:, None], np.ascontiguousarray((added - added[:, n, y][:, :, None]).transpose(1, 2, 0))


def _row_losses(offset: Array, slopes: Array, weights: Array) -> Array:
    return np.asarray(logsumexp(offset + slopes @ weights, axis=1))


def _derivatives(offset: Array, slopes: Array, weights: Array) -> tuple[float, Array, Array]:
    """Mean cross-entropy, its gradient ``[m]`` and its Hessian ``[m, m]``."""
    logits = offset + slopes @ weights
    loss = logsumexp(logits, axis=1)
    chance = np.exp(logits - loss[:, None])
    expected = np.einsum("nc,ncm->nm", chance, slopes)
    spread = ((slopes - expected[:, None]) * np.sqrt(chance)[:, :, None]).reshape(-1, len(weights))
    return float(loss.mean()), expected.mean(0), spread.T @ spread / len(loss)


def _path(offset: Array, slopes: Array, first: int, strengths: tuple[float, ...]) -> list[Array]:
    """Shares of the members for each strength, strongest prior first, each solve begun where the last one ended."""
    members = slopes.shape[-1]
    free = np.isin(np.arange(members), (first, members - 1))
    alone = solve_simplex(offset, slopes[:, :, free], np.zeros(2), np.array([1.0, 0.0]))
    path = [np.zeros(members)]
    path[0][free] = alone
    for strength in strengths[1:]:
        path.append(solve_simplex(offset, slopes, np.where(free, 0.0, strength), path[-1]))
    return path


def _held_out_losses(
    offset: Array, slopes: Array, first: int, strengths: tuple[float, ...], held_out: NDArray[np.bool_]
) -> list[float]:
    """Summed loss of the held-out rows for each strength, shares fitted on the others."""
    path = _path(offset[~held_out], slopes[~held_out], first, strengths)
    return [float(_row_losses(offset[held_out], slopes[held_out], shares).sum()) for shares in path]
