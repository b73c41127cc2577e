"""The one list of all losses: `@loss` enters a function with its formula, range and use, and makes its module."""

from __future__ import annotations

import difflib
import inspect
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from nucleate.errors import LossInputError

__all__ = ["Entry", "Loss", "by_name", "catalogue"]

LossFunction = Callable[..., Tensor]
Function = TypeVar("Function", bound=LossFunction)


class Loss(nn.Module, ABC):
    """A loss as a module: options at construction, tensors at the call.

    `losses.CrossEntropy` and its like are made from the functions of their names, and take the options of those.
    Tensors among the options become buffers, and so move with `.to(device)`; an `nn.Parameter` is learnt, as in
    InfoNCE(temperature=nn.Parameter(torch.tensor(0.1))). Options given at the call go before those given at
    construction.

    >>> import torch
    >>> from nucleate import losses
    >>> criterion = losses.CrossEntropy(weight=torch.tensor([1.0, 3.0]), ignore_index=255)
    >>> criterion
    CrossEntropy(weight=tensor([1., 3.]), ignore_index=255)
    >>> round(criterion(torch.zeros(2, 2), torch.tensor([1, 255])).item(), 4)
    0.6931
    """

    function: ClassVar[LossFunction]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        allowed = [p.name for p in inspect.signature(self.function).parameters.values() if p.default is not p.empty]
        self._options = tuple(options)
        for name, value in options.items():
            if name not in allowed:
                raise LossInputError(f"{type(self).__name__}: has no option {name!r}; it has {', '.join(allowed)}")
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, *inputs: Tensor, **named: Any) -> Tensor:
        options = {name: getattr(self, name) for name in self._options}
        return self.function(*inputs, **{**options, **named})

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self._options)


@dataclass(frozen=True, slots=True)
class Entry:
    """One loss: `kind` is the family it belongs to, `range` the values it can take for one position."""

    name: str
    kind: str
    formula: str
    range: str
    use: str
    function: LossFunction
    module: type[Loss]


_BY_NAME: dict[str, Entry] = {}


def loss(kind: str, formula: str, range: str, use: str, module: str | None = None) -> Callable[[Function], Function]:
    """Enter the function below into the catalogue, and make its module.

    Args:
        kind: the family, as "cross entropy".
        formula: in one line of text.
        range: the values that one position can give, as "0..inf".
        use: when to choose this loss, in a phrase.
        module: the name of the module class; None writes `binary_cross_entropy` as `BinaryCrossEntropy`.
    """

    def register(function: Function) -> Function:
        name = function.__name__
        title = module or "".join(word.capitalize() for word in name.split("_"))
        contents = {
            "function": staticmethod(function),
            "__doc__": f"`{name}` as a module.",
            "__module__": "nucleate.losses",  # where pickle and `copy` find it
        }
        _BY_NAME[name] = Entry(name, kind, formula, range, use, function, type(title, (Loss,), contents))
        return function

    return register


def catalogue() -> list[Entry]:
    """Every loss, family by family.

    >>> [entry.name for entry in catalogue() if entry.kind == "cross entropy"]
    ['cross_entropy', 'binary_cross_entropy', 'focal', 'linear_cross_entropy']
    """
    return list(_BY_NAME.values())


def by_name(name: str) -> LossFunction:
    """The loss function of that name, as `catalogue` lists it.

    >>> by_name("lovasz_hinge").__name__
    'lovasz_hinge'
    """
    if name not in _BY_NAME:
        near = difflib.get_close_matches(name, _BY_NAME, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"the names are {', '.join(_BY_NAME)}"
        raise LossInputError(f"by_name: there is no loss named {name!r}; {hint}")
    return _BY_NAME[name].function
