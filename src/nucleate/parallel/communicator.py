"""What ranks say to one another, in the few words that training, prediction and losses need."""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast, final

from nucleate import errors
from nucleate.errors import NucleateError

if TYPE_CHECKING:  # the command line asks for ranks before torch is loaded
    import torch
    from mpi4py.MPI import Intracomm
    from torch import Tensor
    from torch.distributed import ProcessGroup

    Group: TypeAlias = "ProcessGroup | Intracomm | Communicator"
    """What `communicator_of` takes."""

Value = TypeVar("Value")
Made = TypeVar("Made")


class RanksLost(NucleateError):
    """Another rank ended. Each call on the communicator raises it, on every rank that lives, until they go on with the
    one that `survivors` gives."""


class Communicator(ABC):
    """The ranks 0..size - 1 of one job, of which this process is `rank`.

    Every call is collective: each rank makes it, in the same order. Results are the same bits on every rank, and the
    same in every run with so many ranks.
    """

    rank: int
    size: int

    @abstractmethod
    def sum(self, values: Tensor) -> Tensor:
        """The sum of every rank's `values`, which have one shape and type, as a new tensor.

        float16 and bfloat16 are summed in float32.
        """

    @abstractmethod
    def gather(self, rows: Tensor) -> list[Tensor]:
        """The rows of each rank, in rank order; ranks may hold different numbers of them, or none.

        Raises:
            ValueError: on every rank, where the rows of two have different sizes.
        """

    @abstractmethod
    def agree(self, value: Value) -> Value:
        """Rank 0's value, which JSON can hold, for what each rank has of its own, such as the time."""

    @abstractmethod
    def all(self, value: Value) -> list[Value]:
        """Every rank's value, in rank order; JSON can hold it."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait until every rank is here. It ends well on all ranks or on none, so that none leaves the others."""

    @abstractmethod
    def send(self, to: int, value: object) -> None:
        """Send rank `to`, not this one, a small value that JSON can hold; does not wait until it is received."""

    @abstractmethod
    def receive(self) -> tuple[int, Any] | None:
        """The rank and the value of a message that has come; None where there is none yet. Not collective."""

    @abstractmethod
    def survivors(self) -> Communicator:
        """After `RanksLost`: the ranks that live, numbered anew in their order."""

    def by_first(self, make: Callable[[], Value]) -> Value:
        """What rank 0 makes, which JSON can hold, on every rank; a `NucleateError` there is raised on every rank."""
        said: Any = None
        if self.rank == 0:
            said = _outcome(make)
        value, error = self.agree(said)
        if error is not None:
            raise as_error(error)
        made: Value = value
        return made

    def together(self, make: Callable[[], Made]) -> Made:
        """What each rank makes for itself. Where one cannot, the `NucleateError` of the first such is raised on every
        rank, with its rank and machine where others can."""
        made, failed = None, None
        try:
            made = make()
        except NucleateError as error:
            failed = described(error)
        every: list[Any] = self.all([failed, platform.node()])
        first = next(((rank, *one) for rank, one in enumerate(every) if one[0] is not None), None)
        if first is None:
            return cast("Made", made)
        rank, (kind, sentence), node = first
        if all(one[0] is not None for one in every):
            raise as_error((kind, sentence))
        raise as_error((kind, f"rank {rank} on {node}: {sentence}"))

    def exclusive_scan(self, amount: int) -> int:
        """The sum of the amounts of the ranks before this one: where this rank's numbers begin."""
        return sum(self.all(amount)[: self.rank])


@final
class SingleProcess(Communicator):
    """One process alone.

    >>> import torch
    >>> alone = SingleProcess()
    >>> alone.sum(torch.tensor([1.0, 2.0])).tolist(), alone.exclusive_scan(7), alone.agree("now")
    ([1.0, 2.0], 0, 'now')
    """

    rank, size = 0, 1

    def sum(self, values: Tensor) -> Tensor:
        return values.clone()

    def gather(self, rows: Tensor) -> list[Tensor]:
        return [rows]

    def agree(self, value: Value) -> Value:
        return value

    def all(self, value: Value) -> list[Value]:
        return [value]

    def barrier(self) -> None:
        """There is nobody to wait for."""

    def send(self, to: int, value: object) -> None:
        raise ValueError(f"there is no rank {to}")

    def receive(self) -> None:
        return None

    def survivors(self) -> SingleProcess:
        return self


def described(error: NucleateError) -> tuple[str, str]:
    """The kind of an error and its sentence, to be sent."""
    return type(error).__name__, str(error)


def as_error(sent: Sequence[str]) -> NucleateError:
    """The error of which `described` was sent.

    >>> as_error(("ImageError", "x.tif is cut."))
    ImageError('x.tif is cut.')
    """
    kind, sentence = sent
    found = getattr(errors, kind, NucleateError)
    made: NucleateError = found(sentence)
    return made


def _outcome(make: Callable[[], Any]) -> tuple[Any, tuple[str, str] | None]:
    try:
        return make(), None
    except NucleateError as error:
        return None, described(error)


def summed_in(dtype: torch.dtype) -> torch.dtype:
    """The type that values are summed in: float32 for the half-precision types, else their own."""
    import torch

    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def counts_of_rows(ranks: Sequence[Sequence[int]]) -> list[int]:
    """How many rows each rank gathers, of the (rows, bytes of a row) that each said.

    Raises:
        ValueError: rows of different sizes, on every rank.
    """
    for rank, (_, width) in enumerate(ranks):
        if width != ranks[0][1]:
            raise ValueError(
                f"the rows of rank {rank} have {width} bytes and those of rank 0 {ranks[0][1]}; give every rank "
                "tensors of one type whose shapes differ along the first axis alone"
            )
    return [rows for rows, _ in ranks]


def communicator_of(group: Group | None) -> Communicator:
    """The ranks of `group`: None for this process alone, a communicator of mpi4py or of this package, or a torch
    process group.

    Raises:
        TypeError: it is none of these.
    """
    if group is None:
        return SingleProcess()
    if isinstance(group, Communicator):
        return group
    # Told apart by what they can do: importing mpi4py would start MPI.
    if hasattr(group, "Allreduce") and hasattr(group, "Get_rank"):
        if not group:
            raise TypeError("group is a communicator of MPI that was freed; give one that is in use")
        if not hasattr(group, "Create_cart"):
            raise TypeError("group joins two groups of ranks (an intercommunicator); group.Merge() makes one of them")
        from nucleate.parallel.mpi import MPICommunicator

        return MPICommunicator(cast("Intracomm", group))
    if callable(getattr(group, "rank", None)) and callable(getattr(group, "size", None)):
        from nucleate.parallel.process_group import ProcessGroupCommunicator

        return ProcessGroupCommunicator(group)
    raise TypeError(
        f"group must be a torch process group, a communicator of mpi4py or None, got {type(group).__name__}"
    )
