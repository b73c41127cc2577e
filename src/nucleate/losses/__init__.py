# ruff: noqa: F403, I001 - each family says in __all__ what it offers; their order is that of the catalogue
"""Loss functions for PyTorch: exact, fast, and each a sum with a weight.

    from nucleate import losses
    loss = losses.cross_entropy(logits, target, ignore_index=255)
    total, weight = losses.total_and_weight(losses.cross_entropy, logits, target)

Only torch and numpy are needed. `losses.catalogue()` lists every function with its formula, range and use; each is
a module class too (`losses.CrossEntropy(...)`), and is found by its name (`losses.by_name("lovasz_hinge")`). What is
measured rather than minimised, such as entropy and calibration, is in `losses.measures`.
"""

from inspect import ismodule as _is_module
from operator import attrgetter as _attrgetter
from sys import modules as _modules
from typing import Any as _Any
from warnings import warn as _warn

from nucleate.errors import LossInputError as LossInputError

# The families in the order that the catalogue lists them in. Each says in `__all__` what it offers.
from nucleate.losses import measures as measures
from nucleate.losses.cross_entropy import *
from nucleate.losses.focal import *
from nucleate.losses.topk_cross_entropy import *
from nucleate.losses.generalized_cross_entropy import *
from nucleate.losses.ordinal import *
from nucleate.losses.linear_cross_entropy import *
from nucleate.losses.divergence import *
from nucleate.losses.margin import *
from nucleate.losses.ranking import *
from nucleate.losses.regression import *
from nucleate.losses.overlap import *
from nucleate.losses.lovasz import *
from nucleate.losses.boundary import *
from nucleate.losses.topology import *
from nucleate.losses.contrastive import *
from nucleate.losses.labelled_pairs import *
from nucleate.losses.queues import *
from nucleate.losses.redundancy import *
from nucleate.losses.self_distillation import *
from nucleate.losses.metric import *
from nucleate.losses.angular import *

from nucleate.losses.accumulation import *
from nucleate.losses.distribution import *
from nucleate.losses.kernels import use_kernels as use_kernels, warm_up as warm_up
from nucleate.losses.reduction import *
from nucleate.losses.registry import *
from nucleate.losses.validation import *
from nucleate.losses.modules import *

# What version 0.1 calls them.
_EARLIER = {
    "fast": "use_kernels",
    "prepare": "warm_up",
    "checks": "use_checks",
    "clip": "clip_loss",
    "CLIP": "CLIPLoss",
    **{name: f"measures.{name}" for name in (*measures.__all__, *measures.MODULES)},
}


def __getattr__(name: str) -> _Any:
    """What has another name since version 0.2."""
    if name not in _EARLIER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _warn(f"losses.{name} is called losses.{_EARLIER[name]} since version 0.2", FutureWarning, stacklevel=2)
    found: _Any = _attrgetter(_EARLIER[name])(_modules[__name__])
    return found


__all__ = sorted(["measures", *(name for name, x in globals().items() if name[0] != "_" and not _is_module(x))])
