"""Few-shot adaptation with scikit-learn's manners: `fit` adapts a trained model, `predict` asks the adapted one.

The model is one that a service serves, or one that was downloaded and adapts in this process. Needs
`pip install 'warploom[sklearn]'`.
"""

from __future__ import annotations

from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from warploom.client import Client
from warploom.errors import NotFound
from warploom.local_model import LocalModel

Array = NDArray[Any]
_SAME: tuple[Array, Array] = (np.zeros(1), np.ones(1))


class _Here:
    """Adapts in this process."""

    fewer_classes = True

    def __init__(self, model: LocalModel) -> None:
        self.model = model
        self.kind, self.input_shape, self.outputs = model.kind, model.input_shape, model.outputs

    def adapt(self, x: Array, y: Array, **options: Any) -> None:
        self.net = self.model.adapt(x, y, **options)

    def answer(self, x: Array) -> Array:
        import torch

        with torch.no_grad():
            outputs = self.net(torch.from_numpy(x))
        return np.asarray((outputs.softmax(-1) if self.kind == "classification" else outputs).numpy())


class _There:
    """Adapts at a service, which keeps what it adapted for a while; after that the same support set is sent again."""

    # The service wants an example of every class.
    fewer_classes = False

    def __init__(self, client: Client | str | None, name: str, version: int | None) -> None:
        self.given = client
        facts = self.client.model(name, version)
        self.name, self.version = facts.name, facts.version
        self.kind, self.input_shape, self.outputs = facts.kind, tuple(facts.input_shape), facts.outputs
        self.rows = int(self.client.limits().get("max_support_rows", 1000))

    @property
    def client(self) -> Client:
        if "_client" not in vars(self):
            self._client = self.given if isinstance(self.given, Client) else Client(self.given)
        return self._client

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_client"}

    def adapt(self, x: Array, y: Array, **options: Any) -> None:
        self.sent = x, y, options
        self.id = self.client.adapt(self.name, x, y, version=self.version, **options).id

    def answer(self, x: Array) -> Array:
        parts = [self._part(x[start : start + self.rows]) for start in range(0, len(x), self.rows)]
        return np.concatenate(parts)

    def _part(self, x: Array) -> Array:
        try:
            found = self.client.predict(self.id, x)
        except NotFound:
            support_x, support_y, options = self.sent
            self.adapt(support_x, support_y, **options)
            found = self.client.predict(self.id, x)
        return np.asarray(found.outputs)


_Adapter = _Here | _There


class _FewShot(BaseEstimator):  # type: ignore[misc]
    kind = ""

    def __init__(
        self,
        client: Client | str | None = None,
        model: str | LocalModel | None = None,
        *,
        version: int | None = None,
        steps: int | None = None,
        lr: float | None = None,
        seed: int = 0,
        pad: bool = False,
        scale: bool = False,
    ) -> None:
        self.client = client
        self.model = model
        self.version = version
        self.steps = steps
        self.lr = lr
        self.seed = seed
        self.pad = pad
        self.scale = scale

    def _adapter(self) -> _Adapter:
        if self.model is None:
            raise ValueError(f"{type(self).__name__} needs a model: its name at a service, or a LocalModel")
        found: _Adapter = (
            _Here(self.model) if isinstance(self.model, LocalModel) else _There(self.client, self.model, self.version)
        )
        if found.kind != self.kind:
            raise ValueError(f"{type(self).__name__} needs a model for {self.kind}; this one is for {found.kind}")
        return found

    def _checked(self, X: ArrayLike, y: ArrayLike, **options: Any) -> tuple[Array, Array]:
        checked: tuple[Array, Array] = validate_data(self, X, y, dtype=np.float64, allow_nd=True, **options)
        self.x_mean_, self.x_scale_ = _spread(checked[0]) if self.scale else _SAME
        return checked

    def _adapted(self, adapter: _Adapter, X: Array, y: Array) -> Self:
        adapter.adapt(self._shaped(adapter, X), y, steps=self.steps, lr=self.lr, seed=self.seed)
        self.adapter_ = adapter
        return self

    def _outputs(self, X: ArrayLike) -> Array:
        check_is_fitted(self)
        checked: Array = validate_data(self, X, dtype=np.float64, allow_nd=True, reset=False)
        return self.adapter_.answer(self._shaped(self.adapter_, checked))

    def _shaped(self, adapter: _Adapter, X: Array) -> Array:
        rows = ((X - self.x_mean_) / self.x_scale_).reshape(len(X), -1)
        width = prod(adapter.input_shape)
        if self.pad and rows.shape[1] < width:
            rows = np.pad(rows, ((0, 0), (0, width - rows.shape[1])))
        if rows.shape[1] != width:
            more = "" if rows.shape[1] > width else "; pad=True fills up with zeros"
            raise ValueError(f"X has {rows.shape[1]} features, but the model is expecting {width} features{more}")
        return rows.astype(np.float32).reshape(len(rows), *adapter.input_shape)


class FewShotClassifier(ClassifierMixin, _FewShot):  # type: ignore[misc]
    """A classifier that adapts a meta-trained model to the classes of y.

    Args:
        client: a client, or a service's URL; default as for `Client`. Not needed with a `LocalModel`. A URL (or
            nothing) lets the estimator be pickled; a client does not.
        model: the name of a model at the service, or a `LocalModel` (`client.download_model(name)`), which adapts here.
        version: the model's version; default the latest.
        steps, lr: of adaptation; default the model's own.
        seed: seed of the minibatches.
        pad: fill up rows that have fewer features than the model takes, with zeros.
        scale: bring each feature to mean 0 and deviation 1 by the examples of `fit`. Leave it out where the model was
            trained on features in their own units.

    Labels may be anything that scikit-learn takes. At a service y must have as many classes as the model; here it may
    have fewer. X is [n, features], or [n, *input] for images.

    Raises (fit, predict):
        ValueError: X or y is not what scikit-learn or the model takes.
        WarploomError: the service refuses, or adaptation diverges.

    Example:
        >>> FewShotClassifier("http://localhost:8000", "glyphs").fit(X, y).predict(X_new)  # doctest: +SKIP
    """

    kind = "classification"

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Adapt to examples X and their labels y [n]."""
        rows, given = self._checked(X, y)
        check_classification_targets(given)
        self.classes_, labels = np.unique(given, return_inverse=True)
        adapter, found = self._adapter(), len(self.classes_)
        if found > adapter.outputs or (found < adapter.outputs and not adapter.fewer_classes):
            hint = "" if found > adapter.outputs else "; client.download_model(name) gives one that takes fewer"
            raise ValueError(f"the model tells {adapter.outputs} classes apart, y has {found} classes{hint}")
        return self._adapted(adapter, rows, labels)

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probability of each class [n, classes], in the order of `classes_`."""
        outputs = self._outputs(X)
        # What falls to classes that y did not have is shared out.
        found = outputs.astype(np.float64)[:, : len(self.classes_)]
        return np.asarray(found / np.maximum(found.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny))

    def predict(self, X: ArrayLike) -> Array:
        """The most probable class of each row [n]."""
        chosen = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[chosen])


class FewShotRegressor(RegressorMixin, _FewShot):  # type: ignore[misc]
    """A regressor that adapts a meta-trained model to y.

    Args:
        client, model, version, steps, lr, seed, pad: as for `FewShotClassifier`.
        scale: bring each feature, and y, to mean 0 and deviation 1 by the examples of `fit`.

    y is [n], or [n, outputs] where the model has several. Raises as `FewShotClassifier` does.

    Example:
        >>> FewShotRegressor(model=client.download_model("sine")).fit(X, y).score(X, y)  # doctest: +SKIP
    """

    kind = "regression"

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Adapt to examples X and their values y."""
        rows, given = self._checked(X, y, multi_output=True, y_numeric=True)
        adapter = self._adapter()
        targets: Array = column_or_1d(given, warn=True)[:, None] if adapter.outputs == 1 else given
        if targets.shape[1:] != (adapter.outputs,):
            raise ValueError(f"y has shape {given.shape}, the model gives {adapter.outputs} values a row")
        self.y_mean_, self.y_scale_ = _spread(targets) if self.scale else _SAME
        return self._adapted(adapter, rows, ((targets - self.y_mean_) / self.y_scale_).astype(np.float32))

    def predict(self, X: ArrayLike) -> Array:
        """The values [n], or [n, outputs] where the model has several."""
        outputs = self._outputs(X)
        found = outputs * self.y_scale_ + self.y_mean_
        return np.asarray(found[:, 0] if found.shape[1] == 1 else found)


def _spread(values: Array) -> tuple[Array, Array]:
    deviation = values.std(axis=0)
    return values.mean(axis=0), np.where(deviation > 0, deviation, 1.0)
