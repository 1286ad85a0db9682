"""Which parameters the trials of a sweep get, and which trials are stopped early. Loading Ray Tune takes seconds.

A sweep that goes on after a rest, or after its driver was lost, knows of its past what the trials' rows say: trials
that did not end come first, with their parameters; then new ones, by what all rows taught. Nothing of Tune's own state
is read back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import Searcher

from warploom.records import RUNNING, Trial
from warploom.seeding import derive
from warploom.spec import Dimension, SweepSpec
from workers.trial import EVALUATIONS, PAUSED, TRIAL
from workers.trials import BOOKS, TrialBook

NOBODY: Any = None  # no controller: none of these methods asks it anything


class Suggestions(Searcher):
    """The trials of a book one after the other; none while the sweep is to rest or to end.

    Args:
        sweep_id: of the book.
        spec: the sweep.
    """

    def __init__(self, sweep_id: str, spec: SweepSpec) -> None:
        super().__init__(spec.metric, spec.mode)
        self._sweep_id, self._spec = sweep_id, spec
        self._optuna: Any = _optuna(spec, BOOKS[sweep_id]) if spec.search == "optuna" else None
        self._of_optuna: set[str] = set()
        self._going_on: dict[str, Trial] = {}

    def set_search_properties(self, *told: Any, **more: Any) -> bool:  # noqa: ARG002
        """Nothing: all is known from the sweep."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration, or that there is none."""
        book = BOOKS[self._sweep_id]
        if not book.left:
            return Searcher.FINISHED
        if book.asked() != RUNNING:
            book.interrupted = True
            return Searcher.FINISHED
        trial = book.next()
        if trial is not None:
            self._going_on[trial_id] = trial
        else:
            trial = book.add(self._new(trial_id, len(book.trials)))
        return {**trial.parameters, TRIAL: trial.id}

    def _new(self, trial_id: str, number: int) -> dict[str, Any]:
        if self._optuna is None:
            return draw(self._spec.space, self._spec.seed, number)
        self._of_optuna.add(trial_id)
        return dict(self._optuna.suggest(trial_id))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A trial reported."""
        if trial_id in self._of_optuna and PAUSED not in result:
            self._optuna.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ended; one that rests is told when it has gone on."""
        if self._optuna is None or (result and PAUSED in result):
            return
        if trial_id in self._of_optuna:
            self._optuna.on_trial_complete(trial_id, result, error)
        elif result and self._spec.metric in result:
            self._optuna.add_evaluated_point(self._going_on[trial_id].parameters, result[self._spec.metric])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the rows of the trials are what is kept."""


def draw(space: Mapping[str, Dimension], seed: int, number: int) -> dict[str, Any]:
    """The parameters of a random search's trial, which depend on nothing but the seed and the trial's number.

    Example:
        >>> space = {"training.meta_batch": Dimension(type="randint", low=1, high=4)}
        >>> [draw(space, 0, number)["training.meta_batch"] for number in range(4)]
        [4, 1, 4, 4]
    """
    rng = np.random.default_rng(derive(seed, "trial", number))
    return {path: _drawn(dimension, rng) for path, dimension in space.items()}


def _drawn(dimension: Dimension, rng: np.random.Generator) -> Any:
    if dimension.type == "choice":
        values = dimension.values or ()
        return values[int(rng.integers(len(values)))]
    low, high = dimension.low or 0.0, dimension.high or 0.0
    if dimension.type == "randint":
        return int(rng.integers(int(low), int(high), endpoint=True))
    if dimension.type == "loguniform":
        return min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)
    return float(rng.uniform(low, high))


def _optuna(spec: SweepSpec, book: TrialBook) -> Any:
    """Optuna's tree-structured Parzen estimator, told of all trials that ended; its seed moves on with their number."""
    from ray.tune.search.optuna import OptunaSearch

    space = {path: _domain(dimension) for path, dimension in spec.space.items()}
    found = OptunaSearch(
        OptunaSearch.convert_search_space(space),
        metric=spec.metric,
        mode=spec.mode,
        seed=spec.seed + len(book.trials),
    )
    for trial in book.trials.values():
        if trial.curve and trial.id not in book.waiting:
            found.add_evaluated_point(trial.parameters, trial.curve[-1][spec.metric])
    return found


def _domain(dimension: Dimension) -> Any:
    if dimension.type == "choice":
        return tune.choice(list(dimension.values or ()))
    low, high = dimension.low or 0.0, dimension.high or 0.0
    if dimension.type == "randint":
        return tune.randint(int(low), int(high) + 1)
    return tune.loguniform(low, high) if dimension.type == "loguniform" else tune.uniform(low, high)


def scheduler(sweep_id: str, spec: SweepSpec) -> Any:
    """ASHA by evaluations, or none: every trial to its end."""
    if spec.scheduler == "none":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    evaluations = spec.job.training.rounds // spec.job.evaluation.every + 2
    grace = min(spec.grace_evaluations + 1, evaluations)  # the evaluation before any training decides nothing
    return _Halving(sweep_id, spec, max_t=evaluations, grace_period=grace, reduction_factor=3)


class _Halving(ASHAScheduler):
    """ASHA that has seen the curves of a sweep's earlier runs."""

    def __init__(self, sweep_id: str, spec: SweepSpec, **options: Any) -> None:
        super().__init__(time_attr=EVALUATIONS, **options)
        self._sweep_id, self._told = sweep_id, spec.metric

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric and mode, then see the past."""
        done: bool = super().set_search_properties(metric, mode, **spec)
        book = BOOKS[self._sweep_id]
        for past in book.trials.values():
            if past.id not in book.waiting:
                stand_in: Any = SimpleNamespace(trial_id=past.id)
                super().on_trial_add(NOBODY, stand_in)
                self._see(stand_in, past)
                super().on_trial_remove(NOBODY, stand_in)
        return done

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A new trial, or one that goes on and brings its curve."""
        super().on_trial_add(tune_controller, trial)
        self._see(trial, BOOKS[self._sweep_id].trials[trial.config[TRIAL]])

    def _see(self, trial: Any, row: Trial) -> None:
        for number, measured in enumerate(row.curve, 1):
            told = {EVALUATIONS: float(number), self._told: measured[self._told]}
            super().on_trial_result(NOBODY, trial, told)
