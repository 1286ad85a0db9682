"""The estimators: scikit-learn's own checks on the local path, and the service's path over its HTTP answers."""

from __future__ import annotations

import json
import pickle
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from tests.client.conftest import ok
from warploom.algorithms.base import Algorithm
from warploom.build import build
from warploom.client import Client
from warploom.codec import pack_model
from warploom.local_model import LocalModel
from warploom.sklearn import FewShotClassifier, FewShotRegressor
from warploom.spec import JobSpec
from warploom.types import MetaState
from warploom.wire import read_npz

FEATURES = 20


def local(target: str, **task: Any) -> LocalModel:
    """An untrained net of 20 inputs: what scikit-learn checks is the manners, and the fit is adaptation alone."""
    document = {
        "algorithm": {"name": "none", "inner_lr": 0.3, "inner_steps": 12},
        "task": {"name": "arrays", "target": target, "features": [FEATURES], "shots": 5, **task},
        "model": {"name": "mlp", "hidden": [32]},
    }
    spec = JobSpec.parse(document)
    algorithm: Algorithm[Any] = build(spec, sampling=False)
    return LocalModel(pack_model(spec, MetaState(0, algorithm.model.initial(0))))


# The estimators were made to pass all of scikit-learn's checks; what cannot apply would stand here with its reason.
ESTIMATORS = [
    FewShotClassifier(model=local("class", ways=5), pad=True, scale=True),
    FewShotRegressor(model=local("value"), pad=True, scale=True),
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


class Service:
    """A service's answers about one model, which adapts for real."""

    def __init__(self, target: str, **task: Any) -> None:
        self.local = local(target, **task)
        self.adapted: dict[str, Any] = {}
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        match request.url.path.split("/")[2:]:
            case ["limits"]:
                return ok({"max_support_rows": 7})
            case ["models", "m"]:
                facts = {"name": "m", "version": 3, "created_at": 1, "parameters": 1, "bytes": 1, "sha256": "0"}
                shape = {"kind": self.local.kind, "input_shape": [FEATURES], "outputs": self.local.outputs}
                return ok(facts | shape | {"default_steps": 1, "default_lr": 0.1})
            case ["models", "m", "adapt"]:
                assert request.url.params["version"] == "3"
                arrays = read_npz(request.read(), max_bytes=10**6)
                options = {name: json.loads(request.url.params[name]) for name in ("steps", "lr", "seed")}
                id = f"ad_{len(self.asked)}"
                self.adapted[id] = self.local.adapt(arrays["support_x"], arrays["support_y"], **options)
                losses = {"losses": [1.0], "steps": 1, "lr": 0.1, "expires_at": 2.0}
                return ok({"id": id, "model": "m", "version": 3} | losses)
            case ["adaptations", id, "predict"] if id in self.adapted:
                x = torch.tensor(read_npz(request.read(), max_bytes=10**6)["query_x"])
                assert len(x) <= 7
                outputs = self.adapted[id](x).detach()
                return ok(
                    {"outputs": (outputs.softmax(-1) if self.local.kind == "classification" else outputs).tolist()}
                )
        return ok({"code": "not_found", "detail": "gone"}, 404)


OPTIONS: dict[str, Any] = {"steps": 5, "lr": 0.2, "seed": 1}


def test_at_a_service_as_here_also_when_the_adaptation_has_expired() -> None:
    chance = np.random.default_rng(0)
    X, y = chance.random((20, FEATURES)), np.array(["ant", "bee"] * 10)
    service = Service("class", ways=2)
    with Client("http://service", transport=httpx.MockTransport(service)) as client:
        there = clone(FewShotClassifier(client, "m", **OPTIONS)).fit(X, y)
        here = FewShotClassifier(model=service.local, **OPTIONS).fit(X, y)
        np.testing.assert_allclose(there.predict_proba(X), here.predict_proba(X), rtol=1e-6)
        service.adapted.clear()
        assert there.predict(X).tolist() == here.predict(X).tolist()
        assert sum(path.endswith("/adapt") for path in service.asked) == 2
        assert 0.5 <= there.score(X, y) <= 1


def test_what_does_not_fit_is_refused() -> None:
    X, y = np.zeros((4, FEATURES)), [0, 1, 2, 0]
    service = Service("class", ways=4)
    client = Client("http://service", transport=httpx.MockTransport(service))
    model = service.local
    for estimator, data, says in [
        (FewShotClassifier(client, "m"), X, "y has 3 classes; client.download_model"),
        (FewShotRegressor(client, "m"), X, "needs a model for regression"),
        (FewShotClassifier(client), X, "needs a model: its name"),
        (FewShotClassifier(model=model), X[:, 1:], "expecting 20 features; pad=True"),
        (FewShotClassifier(model=local("class", ways=2)), X, "tells 2 classes apart, y has 3"),
        (FewShotRegressor(model=local("value", values=2)), X, "gives 2 values a row"),
    ]:
        with pytest.raises(ValueError, match=says):
            estimator.fit(data, y)
    assert FewShotClassifier(model=model).fit(X, y).predict_proba(X).shape == (4, 3)


def test_several_values_and_pickles() -> None:
    chance = np.random.default_rng(0)
    X, y = chance.random((6, FEATURES)), chance.random((6, 2))
    fitted = FewShotRegressor(model=local("value", values=2), scale=True, **OPTIONS).fit(X, y)
    assert fitted.predict(X).shape == (6, 2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(X), fitted.predict(X))
