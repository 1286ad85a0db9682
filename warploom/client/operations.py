"""One table of operations for two clients: on a blocking owner each is a function, on an asynchronous one a coroutine.

An operation's plan is a function that gives a `Call`, or a coroutine function whose first argument is the `Core`. As a
class attribute the operation becomes a method of whatever owns a core, typed for both kinds of owner.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from warploom.client.calls import Call
from warploom.client.core import Core
from warploom.client.paging import AsyncPages, Pages
from warploom.client.transport import finish, iterate
from warploom.records import Page

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")
A = TypeVar("A")


class Owner:
    """Anything that operations belong to: a client, or an object that a client gave."""

    _core: Core

    def _bound(self, result: Any) -> Any:
        """A result as the caller sees it."""
        return result


class Sync(Owner):
    """Operations block."""


class Async(Owner):
    """Operations are awaited."""


class _Described:
    """A plan with its name and docstring.

    Args:
        plan: what the operation does.
        of: the owner's attribute that is the plan's first argument (`id`), or None.
    """

    def __init__(self, plan: Callable[..., Any], of: str | None = None) -> None:
        self.plan, self.of, self.name = plan, of, plan.__name__
        self.__doc__ = plan.__doc__
        parameters = list(inspect.signature(plan).parameters.values())
        self.takes_core = bool(parameters) and parameters[0].name == "core"
        self.signature = inspect.signature(plan).replace(parameters=parameters[self.takes_core + (of is not None) :])

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def method(self, owner: Any, do: Callable[..., Any]) -> Callable[..., Any]:
        """`do` as a bound method that looks like the plan."""

        @functools.wraps(self.plan)
        def bound(*args: Any, **options: Any) -> Any:
            first = () if self.of is None else (getattr(owner, self.of),)
            return do(*first, *args, **options)

        bound.__name__ = self.name
        bound.__signature__ = self.signature  # type: ignore[attr-defined]
        return bound


class Operation(_Described, Generic[P, S, A]):
    """Gives S to blocking callers and A to asynchronous ones."""

    @overload
    def __get__(self, owner: None, kind: type) -> Operation[P, S, A]: ...
    @overload
    def __get__(self, owner: Sync, kind: type) -> Callable[P, S]: ...
    @overload
    def __get__(self, owner: Async, kind: type) -> Callable[P, Coroutine[Any, Any, A]]: ...
    def __get__(self, owner: Any, kind: type) -> Any:
        if owner is None:
            return self
        later = functools.partial(self._later, owner)
        return self.method(owner, (lambda *a, **k: finish(later(*a, **k))) if isinstance(owner, Sync) else later)

    async def _later(self, owner: Owner, *args: Any, **options: Any) -> Any:
        if self.takes_core:
            return owner._bound(await self.plan(owner._core, *args, **options))
        return owner._bound(await owner._core.do(self.plan(*args, **options)))


class Stream(_Described, Generic[P, T]):
    """Gives items as they come; the plan is an asynchronous generator over a `Core`."""

    @overload
    def __get__(self, owner: None, kind: type) -> Stream[P, T]: ...
    @overload
    def __get__(self, owner: Sync, kind: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, owner: Async, kind: type) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, owner: Any, kind: type) -> Any:
        if owner is None:
            return self
        flow = functools.partial(self.plan, owner._core)
        return self.method(owner, (lambda *a, **k: iterate(flow(*a, **k))) if isinstance(owner, Sync) else flow)


class Listing(_Described, Generic[P, S, A]):
    """Gives a page of a list, from which all later pages can be reached; the plan takes `after`."""

    @overload
    def __get__(self, owner: None, kind: type) -> Listing[P, S, A]: ...
    @overload
    def __get__(self, owner: Sync, kind: type) -> Callable[P, Pages[S]]: ...
    @overload
    def __get__(self, owner: Async, kind: type) -> Callable[P, AsyncPages[A]]: ...
    def __get__(self, owner: Any, kind: type) -> Any:
        if owner is None:
            return self

        def pages(*args: Any, **options: Any) -> Any:
            asked = inspect.signature(self.plan).bind(*args, **options)
            found: AsyncPages[Any] = AsyncPages(owner._core, self.plan, asked, owner._bound)
            return Pages.first(found) if isinstance(owner, Sync) else found

        return self.method(owner, pages)


@overload
def operation(plan: Callable[P, Call[T]]) -> Operation[P, T, T]: ...
@overload
def operation(plan: Callable[Concatenate[Core, P], Coroutine[Any, Any, T]]) -> Operation[P, T, T]: ...
def operation(plan: Callable[..., Any]) -> Any:
    """An operation whose result is the same for both clients."""
    return Operation(plan)


def stream(plan: Callable[Concatenate[Core, P], AsyncGenerator[T, None]]) -> Stream[P, T]:
    """A stream."""
    return Stream(plan)


def listing(plan: Callable[P, Call[Page[T]]]) -> Listing[P, T, T]:
    """A listing of plain records."""
    return Listing(plan)


@overload
def of_id(known: Operation[Concatenate[str, P], S, A]) -> Operation[P, S, A]: ...
@overload
def of_id(known: Stream[Concatenate[str, P], T]) -> Stream[P, T]: ...
@overload
def of_id(known: Listing[Concatenate[str, P], S, A]) -> Listing[P, S, A]: ...
def of_id(known: Any) -> Any:
    """A client's operation as one of an object's, about the object's own id."""
    return type(known)(known.plan, "id")
