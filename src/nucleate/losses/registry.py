"""The one list of all losses: `@loss` enters a function with its formula, range and use, and makes its module."""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, cast, get_type_hints

import torch
from torch import Tensor, nn

from nucleate.errors import LossInputError
from nucleate.losses.distributed import require_group
from nucleate.losses.docstrings import completed
from nucleate.losses.options import accepts, classes_of, described, is_of
from nucleate.losses.validation import outdated

__all__ = ["Entry", "Loss", "by_name", "catalogue"]

LossFunction = Callable[..., Tensor]
Function = TypeVar("Function", bound=LossFunction)

# What version 0.1 called the weights of classes and of positions in the losses that have both.
POSITION_WEIGHT = {"weight": "class_weight", "position_weight": "weight"}
EARLIER_NAMES = {"clip": "clip_loss"}


class Loss(nn.Module, ABC):
    """A loss as a module: options at construction, tensors at the call.

    `losses.CrossEntropy` and its like are made from the functions of their names, and take the options of those. Each
    option is an attribute that can be read and set, and is checked when it is. Tensors among the options become
    buffers, and so move with `.to(device)`; an `nn.Parameter` is learnt, as in
    InfoNCE(temperature=nn.Parameter(torch.tensor(0.1))). Options given at the call go before those of the module.

    >>> import torch
    >>> from nucleate import losses
    >>> criterion = losses.CrossEntropy(class_weight=torch.tensor([1.0, 3.0]), ignore_index=255)
    >>> criterion
    CrossEntropy(class_weight=tensor([1., 3.]), ignore_index=255)
    >>> round(criterion(torch.zeros(2, 2), torch.tensor([1, 255])).item(), 4)
    0.6931
    >>> criterion.reduction = "sum"
    >>> criterion.reduction, criterion.label_smoothing
    ('sum', 0.0)
    """

    function: ClassVar[LossFunction]
    defaults: ClassVar[Mapping[str, Any]]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        for name, value in {**self.defaults, **_renamed(type(self).__name__, self.function, options)}.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.defaults:
            self._check(name, value)
            for place in (self.__dict__, self._buffers, self._parameters):
                place.pop(name, None)
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
                return
        super().__setattr__(name, value)

    def _check(self, name: str, value: Any) -> None:
        if name == "group":
            require_group(type(self).__name__, value)
        kind = _types_of(self.function)[name]
        if not accepts(kind, value):
            raise LossInputError(f"{type(self).__name__}: {name} must be {described(kind)}, got {value!r}")

    def forward(self, *inputs: Tensor, **named: Any) -> Tensor:
        if not named.keys() <= self.defaults.keys():
            given = {name: value for name, value in named.items() if name in _options_of(self.function)}
            named = {
                **{k: v for k, v in named.items() if k not in given},
                **_renamed(type(self).__name__, self.function, given),
            }
        return self.function(*inputs, **{**{name: getattr(self, name) for name in self.defaults}, **named})

    def __deepcopy__(self, memo: dict[int, Any]) -> Loss:
        """A copy that speaks to the same group: the ranks of a group cannot be copied."""
        memo[id(self.__dict__.get("group"))] = self.__dict__.get("group")
        made = memo[id(self)] = type(self).__new__(type(self))
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    def extra_repr(self) -> str:
        options = {name: getattr(self, name) for name in self.defaults}
        return ", ".join(f"{name}={value!r}" for name, value in options.items() if _differs(value, self.defaults[name]))


def _differs(value: Any, default: Any) -> bool:
    return isinstance(value, Tensor) or bool(value != default)


def _options_of(function: LossFunction) -> set[str]:
    """The names of its options, of today and of version 0.1."""
    named = {p.name for p in inspect.signature(function).parameters.values() if p.default is not p.empty}
    return named | set(getattr(function, "renamed", {}))


def _types_of(function: LossFunction) -> dict[str, Any]:
    """The types of a loss's arguments; the group's is not looked at, as torch may come without `distributed`."""
    return get_type_hints(function, localns={"Group": object}, include_extras=True)


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
_A_TENSOR = torch.empty(0)


def loss(
    kind: str, formula: str, range: str, use: str, module: str | None = None, renamed: Mapping[str, str] | None = None
) -> Callable[[Function], Function]:
    """Enter the function below into the catalogue, complete its docstring, and make its module.

    Args:
        kind: the family, as "cross entropy".
        formula: in one line of text.
        range: the values that one position can give, as "0..inf".
        use: when to choose this loss, in a phrase.
        module: the name of the module class; None writes `binary_cross_entropy` as `BinaryCrossEntropy`.
        renamed: what earlier versions call an option, and its name now.
    """

    def register(function: Function) -> Function:
        name = function.__name__
        function.__doc__ = completed(function, kind)
        function = _with_checked_options(function, renamed or {})
        title = module or "".join(word.capitalize() for word in name.split("_"))
        parameters = inspect.signature(function).parameters.values()
        options = [p for p in parameters if p.default is not p.empty]
        contents = {
            "function": staticmethod(function),
            "defaults": {p.name: p.default for p in options},
            "__doc__": f"`{name}` as a module, whose options are attributes.\n\n{inspect.getdoc(function)}",
            # Where pickle and `copy` find it.
            "__module__": function.__module__ if function.__module__.endswith(".measures") else "nucleate.losses",
            "__signature__": inspect.Signature(options),
        }
        made = type(title, (Loss,), contents)
        _BY_NAME[name] = Entry(name, kind, formula, range, use, function, made)
        return function

    return register


def _renamed(name: str, function: LossFunction, options: dict[str, Any]) -> dict[str, Any]:
    """`options` by the names of today; one that the loss has under no name is refused."""
    earlier: Mapping[str, str] = getattr(function, "renamed", {})
    allowed = [p.name for p in inspect.signature(function).parameters.values() if p.default is not p.empty]
    options = {k: v for k, v in options.items() if v is not None or k not in earlier or k in allowed}
    if any(option in earlier and option not in allowed for option in options):
        said = [f"{before}= is called {now}=" for before, now in earlier.items() if before in options]
        outdated(f"{name}: {', '.join(said)} since version 0.2")
        options = {earlier.get(option, option): value for option, value in options.items()}
    for option in options:
        if option not in allowed:
            raise LossInputError(f"{name}: has no option {option!r}; it has {', '.join(allowed)}")
    return options


def _with_checked_options(function: Function, renamed: Mapping[str, str]) -> Function:
    """The same function, which refuses options of other types, and understands the names of version 0.1.

    Tensors are left to the function, whose messages know what they are for.
    """
    kinds = {name: kind for name, kind in _types_of(function).items() if not accepts(kind, _A_TENSOR)}
    usual = {name: classes_of(kind) for name, kind in kinds.items()}
    outdated_alone = set(renamed) - set(renamed.values())

    @functools.wraps(function)
    def call(*inputs: Any, **options: Any) -> Tensor:
        if outdated_alone and not outdated_alone.isdisjoint(options):
            options = _renamed(function.__name__, call, options)
        for name, value in options.items():
            if name in usual and type(value) not in usual[name] and not is_of(kinds[name], value):
                raise LossInputError(f"{function.__name__}: {name} must be {described(kinds[name])}, got {value!r}")
        require_group(function.__name__, options.get("group"))
        return function(*inputs, **options)

    call.renamed = renamed  # type: ignore[attr-defined]
    return cast(Function, call)


def catalogue() -> list[Entry]:
    """Every loss, family by family.

    >>> [entry.name for entry in catalogue() if entry.kind == "cross entropy"][:3]
    ['cross_entropy', 'binary_cross_entropy', 'focal']
    """
    return list(_BY_NAME.values())


def by_name(name: str) -> LossFunction:
    """The loss function of that name, as `catalogue` lists it.

    >>> by_name("lovasz_hinge").__name__
    'lovasz_hinge'
    """
    if not isinstance(name, str):
        raise LossInputError(f"by_name: name must be a string, got {name!r}; catalogue() lists the names")
    if name in EARLIER_NAMES:
        outdated(f"losses.{name} is called {EARLIER_NAMES[name]} since version 0.2")
        name = EARLIER_NAMES[name]
    if name not in _BY_NAME:
        near = difflib.get_close_matches(name, _BY_NAME, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"the names are {', '.join(_BY_NAME)}"
        raise LossInputError(f"by_name: there is no loss named {name!r}; {hint}")
    return _BY_NAME[name].function
