"""Whether one can learn by differentiating through an inner loop: the three requirements of Gimli.

Symbols: θ* the adapted parameters, L_val the loss of the queries, opt the inner optimiser, G the gradient that it is
given, φ what the outer loop learns.

    I    L_val is differentiable in θ*.
    II   opt is differentiable in θ and G, state included.
    III  something learned reaches the path: (a) continuous settings of opt, or (b) the loss that G comes from; θ_0
         counts among the latter.

Source: Grefenstette et al., 2019, arXiv:1910.01727, section 3.

A derivative that is zero wherever it exists (of a sign, of a rounded number) is none here: automatic differentiation
hands it over without complaint, and nothing is learned. Requirement II is a stated fact of each optimiser, so that the
door knows without torch; all three are also tried out in numbers, at a point of no special kind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import grad, vjp

from warploom.errors import DataMissing, UnfitPair
from warploom.functional import forward
from warploom.seeding import generator
from warploom.tasks.base import TaskFamily
from warploom.types import TaskRef, Tensors

if TYPE_CHECKING:
    from warploom.algorithms.base import Algorithm
    from warploom.inner import InnerLoop

EXAMPLES = 4
_KNOWN: dict[tuple[Any, ...], str | None] = {}  # what was found in this process, by configs


def why_unfit(
    inner: InnerLoop,
    learned: Tensors,
    moves: Collection[str],
    x_B: Tensor,
    y_B: Tensor,
    *,
    outer_loss: Callable[[Tensors, Tensors], Tensor],
    lr: float = 0.1,
    stats: Mapping[str, Tensor] | None = None,
    rule: str = "the inner optimiser",
) -> str | None:
    """The first requirement that fails, and why; None when all hold.

    Args:
        inner: start, support loss and step.
        learned: all meta-parameters, by name.
        moves: the names in `learned` that the outer loop moves: φ.
        x_B, y_B: a few examples, [B, *input] and [B, ...].
        outer_loss: L_val as a function of `learned` and θ*.
        lr: α.
        stats: fixed statistics for batch normalisation; empty to normalise by each batch.
        rule: what to call the optimiser.

    Returns:
        A sentence without its subject, which is whoever differentiates through the loop.
    """
    learned = {name: value + 0.01 * _noise(value, name) for name, value in learned.items()}
    theta = inner.start(learned)
    rate = x_B.new_tensor(lr) if x_B.is_floating_point() else torch.tensor(lr)
    if not theta:
        return _failed("III", "no parameter adapts, so that there is no path")

    value = outer_loss(learned, theta)
    if not value.is_floating_point() or not _alive(lambda own: {"value": outer_loss(learned, own)}, theta):
        return _failed("I", "the loss of the queries does not change smoothly with the adapted parameters")

    first, second = ({name: _noise(value, when, name) for name, value in theta.items()} for when in ("first", "second"))

    def two_steps(known: Tensors, at: Tensors, g: Tensors) -> Tensors:  # two, for rules that act on the last gradient
        after, state = inner.inner_step(known, 0, at, g, inner.inner_state(known, at), rate)
        last, _ = inner.inner_step(known, 1, after, second, state, rate)
        return {f"1 {name}": value for name, value in after.items()} | last

    if not _alive(lambda g: two_steps(learned, theta, g), first):
        return _failed("II", f"the step of {rule} does not change smoothly with the gradient")
    if not _alive(lambda at: two_steps(learned, at, first), theta):
        return _failed("II", f"the step of {rule} does not change smoothly with the parameters")

    phi = {name: learned[name] for name in learned if name in moves}

    def start(own: Tensors) -> Tensors:
        return inner.start({**learned, **own})

    def setting(own: Tensors) -> Tensors:
        return two_steps({**learned, **own}, theta, first)

    def slope(own: Tensors) -> Tensors:
        found: Tensors = grad(lambda here: inner.support_loss({**learned, **own}, here, x_B, y_B, stats or {}))(theta)
        return found

    if not phi or not any(_alive(reach, phi) for reach in (start, setting, slope)):
        named = ", ".join(sorted(phi)[:4]) + (", …" if len(phi) > 4 else "")
        return _failed(
            "III",
            f"nothing that is learned ({named or 'no parameter at all'}) reaches the start, the loss or a continuous "
            f"setting of {rule}",
        )
    return None


def refuse_unfit(algorithm: Algorithm[Any]) -> None:
    """Try out the requirements on a freshly built algorithm that differentiates through its inner loop.

    Examples are made up where the family has the usual loss and the model takes any numbers, else drawn from the
    family; a family whose files are missing here is taken on trust.

    Raises:
        UnfitPair: one fails.
    """
    if not algorithm.config.through_inner_loop:
        return
    key = (type(algorithm), *(config.model_dump_json() for config in (algorithm.config, algorithm.family.config)))
    key += (tuple(algorithm.model.roles.items()),)
    if key not in _KNOWN:
        _KNOWN[key] = _tried(algorithm)
    reason = _KNOWN[key]
    if reason:
        raise UnfitPair(
            f"algorithm {algorithm.config.name!r} {reason}",
            field="/algorithm",
            rule="requirements I, II and III of arXiv:1910.01727",
            value=algorithm.config.name,
        )


def _tried(algorithm: Algorithm[Any]) -> str | None:
    meta = algorithm.init(0)
    stats = algorithm.given_stats(meta)
    examples = _examples(algorithm, {name: meta.params[name] for name in algorithm.model.roles}, stats)
    if examples is None:
        return None
    x_B, y_B = examples
    return why_unfit(
        algorithm,
        meta.params,
        {name for name, rate in algorithm.outer().rates.items() if rate},
        x_B,
        y_B,
        outer_loss=lambda learned, theta: algorithm.outer_loss(learned, theta, x_B, x_B, y_B, stats),
        lr=algorithm.config.inner_lr,
        stats=stats,
        rule=algorithm.config.inner_optimiser.name,
    )


def _examples(algorithm: Algorithm[Any], params: Tensors, stats: Tensors) -> tuple[Tensor, Tensor] | None:
    family, task = algorithm.family, algorithm.family.config
    if type(family).loss is TaskFamily.loss:
        like = next(iter(params.values()))
        x_B = _noise(like.new_empty(EXAMPLES, *task.input_shape), "x")
        if task.kind == "classification":
            y_B = torch.arange(EXAMPLES) % task.outputs
        else:
            y_B = _noise(like.new_empty(EXAMPLES, task.outputs), "y")
        # A model that takes numbers of a special kind gets examples of the family instead.
        with suppress(RuntimeError, IndexError, TypeError):
            forward(algorithm.model, params, x_B, stats)
            return x_B, y_B
    try:
        tasks = family.sample([TaskRef("train", 0, 0)])
    except DataMissing:
        return None
    return tasks.support_x[0, :EXAMPLES], tasks.support_y[0, :EXAMPLES]


def _alive(function: Callable[[Tensors], Tensors], at: Tensors) -> bool:
    """Whether a random combination of the outputs has a finite derivative that is not zero all over."""
    outputs, pull, *_ = vjp(function, at)
    (found,) = pull({name: _noise(value, "weights", name) for name, value in outputs.items()})
    slopes = torch.cat([value.detach().flatten() for value in found.values()])
    return bool(slopes.isfinite().all()) and bool((slopes != 0).any())


def _noise(like: Tensor, *path: str) -> Tensor:
    drawn = torch.randn(like.shape, generator=generator("gimli", *path), dtype=torch.float64)
    return drawn.to(device=like.device, dtype=like.dtype)


def _failed(requirement: str, why: str) -> str:
    return f"learns through the inner loop, and requirement {requirement} for that fails: {why}"
