"""What can be set about the recurrent nets of `maze`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from warploom.configs import ModelConfig, Role
from warploom.models.configs.base import linear
from warploom.tasks.configs.maze import ACTIONS, OBSERVATION


class RNNConfig(ModelConfig):
    """A plain recurrent net with a policy and a value head."""

    summary: ClassVar[str] = "recurrent actor-critic, for maze"
    source: ClassVar[str] = "Miconi et al., ICLR 2019: 100 tanh units"

    only_for: ClassVar[frozenset[str]] = frozenset({"maze"})

    name: Literal["rnn"] = "rnn"
    hidden: int = Field(64, ge=1, le=4096, description="recurrent units; the papers have 100")

    def role(self, name: str) -> Role:
        return "warp" if name.startswith("cell.warp") else super().role(name)

    def sizes(self, input_shape: tuple[int, ...], outputs: int) -> dict[str, int]:  # noqa: ARG002
        heads = linear("head_policy", self.hidden, ACTIONS) | linear("head_value", self.hidden, 1)
        return self.cell() | heads

    def cell(self) -> dict[str, int]:
        """Sizes of the recurrent part."""
        H = self.hidden
        return linear("cell.inward", OBSERVATION, H) | linear("cell.around", H, H, bias=False)


class PlasticRNNConfig(RNNConfig):
    """`rnn` whose recurrent weights change within an episode by a Hebbian rule, under its own neuromodulation."""

    summary: ClassVar[str] = "recurrent actor-critic with plastic, self-modulated weights, for maze"
    source: ClassVar[str] = "Miconi et al., ICLR 2019 (Backpropamine): simple and retroactive neuromodulation"

    name: Literal["plastic_rnn"] = "plastic_rnn"  # type: ignore[assignment]
    modulation: Literal["none", "simple", "retroactive"] = Field(
        "retroactive", description="none: a learned rate; simple: M(t); retroactive: M(t) times an eligibility trace"
    )

    def cell(self) -> dict[str, int]:
        """Sizes of the recurrent part, its plasticity included."""
        found = {"cell.plasticity": self.hidden**2, **super().cell()}
        if self.modulation != "simple":
            found["cell.rate"] = 1
        return found | (linear("cell.modulator", self.hidden, 1) if self.modulation != "none" else {})


class WarpRNNConfig(RNNConfig):
    """`rnn` whose signals are gated by an LSTM, which is held fixed while a task adapts."""

    summary: ClassVar[str] = "recurrent actor-critic gated by an LSTM as warp, for maze"
    source: ClassVar[str] = "Flennerhag et al., ICLR 2020, section 5.3; gates as in adaptive LSTM"
    provides: ClassVar[frozenset[Role]] = frozenset({"adapt", "warp", "head"})

    name: Literal["warp_rnn"] = "warp_rnn"  # type: ignore[assignment]
    warp_hidden: int = Field(64, ge=1, le=4096, description="units of the LSTM; the paper has 100")

    def cell(self) -> dict[str, int]:
        """Sizes of the gated part and of the LSTM."""
        H, W = self.hidden, self.warp_hidden
        own = {"cell.offset": H, "cell.inward.weight": OBSERVATION * H, "cell.around.weight": H * H}
        gates = linear("cell.warp_gates", W, OBSERVATION + 4 * H, bias=False)
        return own | linear("cell.warp_lstm", OBSERVATION + H + W, 4 * W) | gates
