"""What can be set about the recurrent nets of `maze`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.configs import ModelConfig, Role


class RNNConfig(ModelConfig):
    """A plain recurrent net with a policy and a value head."""

    summary: ClassVar[str] = "recurrent actor-critic, for maze"
    source: ClassVar[str] = "Miconi et al., ICLR 2019: 100 tanh units"

    only_for: ClassVar[frozenset[str]] = frozenset({"maze"})

    name: Literal["rnn"] = "rnn"
    hidden: int = Field(64, ge=1, le=4096, description="recurrent units; the papers have 100")


class PlasticRNNConfig(RNNConfig):
    """`rnn` whose recurrent weights change within an episode by a Hebbian rule, under its own neuromodulation."""

    summary: ClassVar[str] = "recurrent actor-critic with plastic, self-modulated weights, for maze"
    source: ClassVar[str] = "Miconi et al., ICLR 2019 (Backpropamine): simple and retroactive neuromodulation"

    name: Literal["plastic_rnn"] = "plastic_rnn"  # type: ignore[assignment]
    modulation: Literal["none", "simple", "retroactive"] = Field(
        "retroactive", description="none: a learned rate; simple: M(t); retroactive: M(t) times an eligibility trace"
    )


class WarpRNNConfig(RNNConfig):
    """`rnn` whose signals are gated by an LSTM, which is held fixed while a task adapts."""

    summary: ClassVar[str] = "recurrent actor-critic gated by an LSTM as warp, for maze"
    source: ClassVar[str] = "Flennerhag et al., ICLR 2020, section 5.3; gates as in adaptive LSTM"
    provides: ClassVar[frozenset[Role]] = frozenset({"adapt", "warp", "head"})

    name: Literal["warp_rnn"] = "warp_rnn"  # type: ignore[assignment]
    warp_hidden: int = Field(64, ge=1, le=4096, description="units of the LSTM; the paper has 100")
