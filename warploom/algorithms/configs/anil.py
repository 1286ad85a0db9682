"""What can be set about `anil`."""

from __future__ import annotations

from typing import ClassVar, Literal

from warploom.algorithms.configs.maml import UnrolledConfig
from warploom.configs import Role


class ANILConfig(UnrolledConfig):
    """ANIL: a task adapts the head alone; the outer loop learns the whole net."""

    summary: ClassVar[str] = "MAML that adapts the head alone"
    source: ClassVar[str] = "Raghu, Raghu, Bengio, Vinyals, ICLR 2020, arXiv:1909.09157"
    needs: ClassVar[frozenset[Role]] = frozenset({"head"})
    adapted: ClassVar[frozenset[Role]] = frozenset({"head"})

    name: Literal["anil"] = "anil"
