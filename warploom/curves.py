"""A job's metrics over its rounds, from its events, thinned out to a number of points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from warploom.records import Event, Metrics

KINDS = {"round": "", "evaluation": "held_out/"}
COUNTS = frozenset({"meta_step", "total"})


def curves(events: Iterable[Event], keys: Sequence[str] = (), from_step: int = 0, max_points: int = 1000) -> Metrics:
    """Every number of a job's rounds (by its name) and evaluations (`held_out/<name>`), in the order of rounds.

    A round that was done twice, by a run that was lost and by its successor, counts as the successor saw it.

    Args:
        events: the job's history.
        keys: only these; empty for all.
        from_step: the first round.
        max_points: most points of each curve; of more, evenly spaced ones stay, the first and the last among them.

    Example:
        >>> history = [Event(id=str(n), at=n, kind="round", data={"meta_step": n, "loss": 1.0 / n}) for n in (1, 2, 3)]
        >>> curves(history, max_points=2).curves
        {'loss': [(1, 1.0), (3, 0.3333333333333333)]}
    """
    found: dict[str, dict[int, float]] = {}
    for event in events:
        step = event.data.get("meta_step")
        if event.kind not in KINDS or not isinstance(step, int) or step < from_step:
            continue
        for name, value in event.data.items():
            key = KINDS[event.kind] + name
            if (
                name in COUNTS
                or isinstance(value, bool)
                or not isinstance(value, int | float)
                or (keys and key not in keys)
            ):
                continue
            found.setdefault(key, {})[step] = float(value)
    return Metrics(curves={key: thinned(sorted(points.items()), max_points) for key, points in sorted(found.items())})


def thinned(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most `most` of the points, evenly spaced, the first and the last among them.

    Example:
        >>> thinned([(n, 0.0) for n in range(10)], 4) == [(0, 0.0), (3, 0.0), (6, 0.0), (9, 0.0)]
        True
    """
    count = len(points)
    if count <= most:
        return list(points)
    if most == 1:
        return [points[-1]]
    return [points[round(i * (count - 1) / (most - 1))] for i in range(most)]
