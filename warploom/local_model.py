"""A trained model in this process: adapted without any service, into a plain `nn.Module`.

Shape suffixes: S support.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from warploom.adaptation import Answer, ServedModel, Support
from warploom.configs import Kind
from warploom.errors import InvalidInput
from warploom.models.base import BatchNorm


class LocalModel:
    """A model's file, ready to adapt. The family's data need not be here.

    Args:
        blob: the bytes of `Client.download`, or of the `model.safetensors` that local training writes.

    Raises:
        WireError: the bytes are not a model.

    Example:
        >>> model = LocalModel(Path("model.safetensors").read_bytes())      # doctest: +SKIP
        >>> net = model.adapt(support_x, support_y)                         # doctest: +SKIP
        >>> net(torch.as_tensor(query_x)).argmax(-1)                        # doctest: +SKIP
    """

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        self._served = ServedModel.load(blob)

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalModel, (self._blob,)

    def __repr__(self) -> str:
        spec = self._served.spec
        return (
            f"LocalModel({spec.algorithm.name} on {spec.task.name}, {self.kind}, {self.input_shape} → {self.outputs})"
        )

    @classmethod
    def load(cls, path: str | Path) -> LocalModel:
        """From a file. Raises WireError."""
        return cls(Path(path).read_bytes())

    @property
    def kind(self) -> Kind:
        """classification or regression."""
        return self._served.algorithm.model.kind

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self._served.spec.task.input_shape)

    @property
    def outputs(self) -> int:
        """Classes, or numbers to predict."""
        return self._served.spec.task.outputs

    def adapt(
        self,
        support: Any,
        support_y: ArrayLike | None = None,
        *,
        steps: int | None = None,
        lr: float | None = None,
        seed: int = 0,
    ) -> nn.Module:
        """The model adapted to one task: a module of its own, which gives logits or values [Q, outputs].

        Its parameters and statistics are all in its `state_dict`; nothing of it is shared with this object.

        Args:
            support: the task's examples [S, *input]; or the pair of them and their labels.
            support_y: labels 0 … N-1 ([S]) or targets ([S, outputs]); [S] will do where there is one output.
            steps: steps of adaptation; default the model's own.
            lr: step size; default the model's own.
            seed: seed of the minibatches.

        Raises:
            InvalidInput: the support set does not fit the model, or adaptation diverges.
        """
        x, y = _pair(support) if support_y is None else (support, support_y)
        config = self._served.algorithm.config
        request = Support(
            x_S=self._inputs(x),
            y_S=self._labels(y) if self.kind == "classification" else self._targets(y),
            x_Q=torch.zeros(0, *self.input_shape),
            steps=config.inner_steps if steps is None else steps,
            lr=config.inner_lr if lr is None else lr,
            seed=seed,
        )
        if len(request.x_S) != len(request.y_S):
            raise _bad("/support/y", f"as many rows as x: {len(request.x_S)}", len(request.y_S))
        answer = self._served.adapt([request])[0]
        if not all(map(math.isfinite, answer.losses)):
            raise _bad("/lr", "small enough for the support loss to stay finite", request.lr)
        return self._module(answer)

    def _module(self, answer: Answer) -> nn.Module:
        model, learned = self._served.algorithm.model, self._served.meta.params
        module = copy.deepcopy(model.module)
        values = {**self._served.algorithm.fixed(learned), **answer.params}
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(values[name])
        for name, layer in module.named_modules():
            if isinstance(layer, BatchNorm) and f"{name}.mean" in answer.stats:
                # Kept in the state dict, unlike those of a net that is handed new ones for every task.
                layer.register_buffer("mean", answer.stats[f"{name}.mean"].clone())
                layer.register_buffer("var", answer.stats[f"{name}.var"].clone())
        return module.eval()

    def _inputs(self, x: ArrayLike) -> Tensor:
        array = _array("/support/x", x)
        if array.shape[1:] != self.input_shape or not len(array):
            raise _bad("/support/x", f"[rows, {', '.join(map(str, self.input_shape))}]", list(array.shape))
        return torch.from_numpy(array.astype(np.float32))

    def _labels(self, y: ArrayLike) -> Tensor:
        array, rule = _array("/support/y", y), f"whole numbers from 0 to {self.outputs - 1}, one for each row"
        if array.ndim != 1:
            raise _bad("/support/y", rule, list(array.shape))
        if wrong := [value for value in array.tolist() if value not in range(self.outputs)]:
            raise _bad("/support/y", rule, wrong[0])
        return torch.from_numpy(array.astype(np.int64))

    def _targets(self, y: ArrayLike) -> Tensor:
        array = _array("/support/y", y).astype(np.float32)
        if array.ndim == 1 and self.outputs == 1:
            array = array[:, None]
        if array.shape[1:] != (self.outputs,):
            raise _bad("/support/y", f"[rows, {self.outputs}]", list(array.shape))
        return torch.from_numpy(array)


def _pair(support: Any) -> tuple[Any, Any]:
    if isinstance(support, tuple) and len(support) == 2:
        return support
    raise _bad("/support", "examples and labels, as two arguments or as one pair", type(support).__name__)


def _array(field: str, value: ArrayLike) -> Any:
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise _bad(field, "an array of numbers, in rows of equal length", str(array.dtype))
    if not np.isfinite(array).all():
        raise _bad(field, "finite numbers", "a number that is not")
    return array


def _bad(field: str, rule: str, value: Any) -> InvalidInput:
    return InvalidInput(f"{field}: must be {rule}; got {value}", field=field, rule=rule, value=value)
