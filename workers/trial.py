"""One trial of a sweep, in an actor of Ray Tune's: a whole job in one process, which can rest and go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog

from service.connection import connect
from service.settings import Settings
from service.sweeps import SweepStore
from service.trials import TrialFiles
from warploom import plugins
from warploom.codec import pack_model
from warploom.errors import Unavailable
from warploom.learner import LearnerState
from warploom.local import Next, train
from warploom.records import RUNNING, STOPPING, Trial
from warploom.spec import SweepSpec
from warploom.training import pack_state, unpack_state
from warploom.types import MetaState
from workers.patience import PATIENCE_S, insist

log = structlog.get_logger()
ASK_S = 0.5
# What a trial's configuration and its reports hold besides parameters and numbers.
TRIAL, PAUSED, EVALUATIONS = "trial", "paused", "evaluations"
HOPELESS = 1e30  # stands for a loss that is not finite, which schedulers and searchers cannot compare
Report = Callable[[dict[str, float]], None]


class Leash:
    """The sweep's state, asked for now and then; while nobody answers, as it was."""

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask = ask
        self._state, self._asked_at = RUNNING, -ASK_S

    def __call__(self) -> str:
        """The state."""
        if time.monotonic() - self._asked_at >= ASK_S:
            try:
                self._state = self._ask()
            except Unavailable as error:
                log.warning("the sweep's state is not known", error=error.message)
            self._asked_at = time.monotonic()
        return self._state


class TrialRun:
    """One trial, from its beginning or from where it rested, to its end or to the next rest.

    Args:
        spec: the sweep.
        trial: its row as it is stored.
        files: its files.
        asked: the sweep's state.
        report: takes each evaluation, and at a rest a last row that says so.
    """

    def __init__(
        self, spec: SweepSpec, trial: Trial, files: TrialFiles, asked: Callable[[], str], report: Report
    ) -> None:
        self._spec, self._files, self._asked, self._report = spec, files, asked, report
        self._job = spec.trial(trial.parameters)
        self._begin = self._recalled()
        reached = -1 if self._begin is None else self._begin.meta.version
        self._rows = [row for row in trial.curve if row["meta_step"] <= reached]
        self._rests = False

    def _recalled(self) -> LearnerState | None:
        blobs = self._files.load()
        return None if blobs is None else unpack_state(blobs)

    def run(self) -> None:
        """Train; the best meta-state is kept on the way."""
        self._rests = self._asked() not in (RUNNING, STOPPING)
        if not self._rests:
            train(
                self._job,
                on_evaluation=self._measured,
                begin=self._begin,
                checkpoint=self._save,
                after_round=self._after,
            )
        if self._rests:
            nothing = {"meta_step": 0.0, self._spec.metric: self._worst}
            self._tell({**(self._rows[-1] if self._rows else nothing), PAUSED: 1.0})

    @property
    def _worst(self) -> float:
        return HOPELESS if self._spec.mode == "min" else -HOPELESS

    def _measured(self, meta: MetaState, row: dict[str, float]) -> None:
        if any(known["meta_step"] == row["meta_step"] for known in self._rows):
            return
        row = {**row, self._spec.metric: row.get(self._spec.metric, self._worst)}
        sign = 1.0 if self._spec.mode == "min" else -1.0
        if all(sign * row[self._spec.metric] < sign * known[self._spec.metric] for known in self._rows):
            self._files.put_best(pack_model(self._job, meta))
        self._rows.append(row)
        self._tell(row)

    def _tell(self, row: dict[str, float]) -> None:
        self._report({**row, EVALUATIONS: float(len(self._rows))})

    def _after(self, state: LearnerState) -> Next:
        asked = self._asked()
        if asked == RUNNING:
            return Next.GO_ON
        if asked == STOPPING:
            return Next.END
        self._rests = True
        self._save(state)
        return Next.LEAVE

    def _save(self, state: LearnerState) -> bool:
        try:
            self._files.save(state.meta.version, pack_state(state))
        except Unavailable as error:
            log.warning("a trial's state was not saved", meta_step=state.meta.version, reason=error.message)
            return False
        return True


def run_trial(config: dict[str, Any], sweep_id: str, generation: int, settings: dict[str, Any]) -> None:
    """The function that Ray Tune runs for each trial."""
    import torch
    from ray import tune

    torch.set_num_threads(1)
    known = Settings.model_validate(settings)
    plugins.enable(known.plugins)
    store = SweepStore(connect(known, wait_s=PATIENCE_S))
    sweep = insist(lambda: store.get(sweep_id), sweep_id, most_s=PATIENCE_S)
    plain = {name: value for name, value in config.items() if name != TRIAL}
    new = Trial(id=config[TRIAL], state="running", parameters=plain)
    trial = next((one for one in sweep.trials if one.id == new.id), new)
    files = TrialFiles(known, sweep_id, trial.id, generation=generation)
    asked = Leash(lambda: store.state(sweep_id))
    TrialRun(SweepSpec.model_validate(sweep.spec), trial, files, asked, tune.report).run()
