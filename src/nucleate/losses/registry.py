"""Every loss by name, with its formula, its range and when to use it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from nucleate.errors import LossInputError
from nucleate.losses.boundary import boundary
from nucleate.losses.contrastive import clip, decoupled, info_nce, nt_xent, siglip
from nucleate.losses.cross_entropy import binary_cross_entropy, cross_entropy, focal
from nucleate.losses.divergence import (
    generalized_kl,
    hellinger,
    jensen_shannon,
    kl_divergence,
    renyi,
    total_variation,
    wasserstein_1d,
)
from nucleate.losses.entropy import entropy, expected_calibration_error, information, mutual_information, perplexity
from nucleate.losses.labelled_pairs import dense_info_nce, sup_con
from nucleate.losses.linear_cross_entropy import linear_cross_entropy
from nucleate.losses.lovasz import lovasz_hinge, lovasz_softmax
from nucleate.losses.margin import (
    exponential,
    hinge,
    logistic,
    modified_huber,
    perceptron,
    ramp,
    smoothed_hinge,
    squared_hinge,
    zero_one,
)
from nucleate.losses.overlap import dice, focal_tversky, generalized_dice, jaccard, tversky
from nucleate.losses.ranking import margin_ranking, multiclass_hinge, triplet_margin
from nucleate.losses.redundancy import barlow_twins, vicreg

LossFunction = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Entry:
    """One loss: `kind` is the family it belongs to, `range` the values it can take for one position."""

    name: str
    kind: str
    formula: str
    range: str
    use: str
    function: LossFunction


_E, _C, _D = "entropy", "cross entropy", "divergence"
_M, _O, _P = "margin", "overlap", "contrastive"

_ENTRIES = (
    Entry("entropy", _E, "-sum p log p", "0..ln C", "how unsure a prediction is; which tile to label next", entropy),
    Entry("perplexity", _E, "exp(H(p))", "1..C", "entropy as a number of equally likely classes", perplexity),
    Entry("information", _E, "-log p(outcome)", "0..inf", "how surprising what happened was", information),
    Entry("mutual_information", _E, "H(mean p_m) - mean H(p_m)", "0..ln min(C, M)",
          "where several predictions disagree, apart from where all are unsure", mutual_information),
    Entry("expected_calibration_error", _E, "sum n_b/n |accuracy_b - confidence_b|", "0..1",
          "whether stated probabilities can be believed; a measure without gradient", expected_calibration_error),
    Entry("cross_entropy", _C, "-sum w t log softmax(x)", "0..inf", "one class out of several: the first choice",
          cross_entropy),
    Entry("binary_cross_entropy", _C, "-v t log s(x) - (1 - t) log s(-x)", "0..inf",
          "yes or no, or several answers that do not exclude each other", binary_cross_entropy),
    Entry("focal", _C, "-sum w t (1 - q)^g log q", "0..inf", "most pixels are easy and drown the hard ones", focal),
    Entry("linear_cross_entropy", _C, "cross_entropy(W x + b)", "0..inf",
          "so many classes that their logits do not fit", linear_cross_entropy),
    Entry("kl_divergence", _D, "sum p (log p - log q)", "0..inf",
          "keep a prediction q near a reference p: distillation, on-line updates, drift", kl_divergence),
    Entry("jensen_shannon", _D, "(KL(p||m) + KL(q||m)) / 2", "0..ln 2", "two predictions of equal standing",
          jensen_shannon),
    Entry("total_variation", _D, "sum |p - q| / 2", "0..1", "the largest change of any probability", total_variation),
    Entry("hellinger", _D, "sqrt(sum (sqrt p - sqrt q)^2 / 2)", "0..1", "a bounded distance that is a metric",
          hellinger),
    Entry("renyi", _D, "log(sum p^a q^(1-a)) / (a - 1)", "0..inf", "between forgiving (small a) and strict (large a)",
          renyi),
    Entry("generalized_kl", _D, "sum p log(p/q) - p + q", "0..inf", "amounts that need not sum to 1: counts, photons",
          generalized_kl),
    Entry("wasserstein_1d", _D, "sum |P_k - Q_k|", "0..C - 1", "classes in an order: near misses cost less",
          wasserstein_1d),
    Entry("hinge", _M, "max(0, 1 - z)", "0..inf", "a margin is enough; support vectors", hinge),
    Entry("squared_hinge", _M, "max(0, 1 - z)^2", "0..inf", "hinge without a kink; outliers weigh more",
          squared_hinge),
    Entry("smoothed_hinge", _M, "(1 - z)^2 / 2 between 0 and 1, linear below", "0..inf",
          "hinge with a continuous gradient", smoothed_hinge),
    Entry("modified_huber", _M, "max(0, 1 - z)^2, -4 z below -1", "0..inf", "smooth, and linear for outliers",
          modified_huber),
    Entry("logistic", _M, "log(1 + exp(-z))", "0..inf", "probabilities from one score", logistic),
    Entry("exponential", _M, "exp(-z)", "0..inf", "boosting; clean labels only", exponential),
    Entry("perceptron", _M, "max(0, -z)", "0..inf", "only the sign matters", perceptron),
    Entry("ramp", _M, "min(1, max(0, 1 - z))", "0..1", "labels with gross errors", ramp),
    Entry("zero_one", _M, "z <= 0", "0..1", "the share that is wrong; a measure without gradient", zero_one),
    Entry("multiclass_hinge", _M, "max(0, m + s_j - s_y)", "0..inf", "several classes by margin", multiclass_hinge),
    Entry("margin_ranking", _M, "max(0, m - y (a - b))", "0..inf", "which of two ranks higher", margin_ranking),
    Entry("triplet_margin", _M, "max(0, m + d(a, p) - d(a, n))", "0..inf", "nearer to the like than to the unlike",
          triplet_margin),
    Entry("dice", _O, "1 - 2 |P and T| / (|P| + |T|)", "0..1", "small regions on a large background", dice),
    Entry("generalized_dice", _O, "dice with classes weighed by 1 / |T|^2", "0..1", "classes of very different size",
          generalized_dice),
    Entry("jaccard", _O, "1 - |P and T| / |P or T|", "0..1", "the score itself is intersection over union", jaccard),
    Entry("tversky", _O, "1 - TP / (TP + a FP + b FN)", "0..1", "misses and false alarms that cost differently",
          tversky),
    Entry("focal_tversky", _O, "tversky^g", "0..1", "tversky, with more or less weight on nearly solved images",
          focal_tversky),
    Entry("lovasz_hinge", _O, "Lovász extension of 1 - Jaccard, hinge errors", "0..inf",
          "the best intersection over union of one class", lovasz_hinge),
    Entry("lovasz_softmax", _O, "Lovász extension of 1 - Jaccard, |t - p|", "0..1",
          "the best intersection over union of several classes", lovasz_softmax),
    Entry("boundary", _O, "sum p D, D the signed distance to the contour", "any",
          "contours matter; together with dice or cross entropy", boundary),
    Entry("info_nce", _P, "-log softmax(s_i / T)_i", "0..inf", "queries and their keys, one direction", info_nce),
    Entry("clip", _P, "(info_nce(a, b) + info_nce(b, a)) / 2", "0..inf", "two kinds of view of one thing", clip),
    Entry("nt_xent", _P, "info_nce against both views", "0..inf", "two augmentations of one image (SimCLR)", nt_xent),
    Entry("sup_con", _P, "-mean over positives of log softmax", "0..inf", "labels say which belong together", sup_con),
    Entry("siglip", _P, "sum log(1 + exp(-y (s / T + b)))", "0..inf", "large batches without a softmax over them",
          siglip),
    Entry("decoupled", _P, "info_nce without the pair below the line", "any", "small batches", decoupled),
    Entry("dense_info_nce", _P, "info_nce of matched pixels", "0..inf", "pre-training for segmentation",
          dense_info_nce),
    Entry("barlow_twins", _P, "sum (1 - C_ii)^2 + l sum C_ij^2", "0..inf", "no negatives; wide embeddings",
          barlow_twins),
    Entry("vicreg", _P, "invariance + variance + covariance", "0..inf", "no negatives; each cause of collapse by name",
          vicreg),
)  # fmt: skip

_BY_NAME = {entry.name: entry for entry in _ENTRIES}


def catalogue() -> list[Entry]:
    """Every loss, family by family.

    >>> [entry.name for entry in catalogue() if entry.kind == "cross entropy"]
    ['cross_entropy', 'binary_cross_entropy', 'focal', 'linear_cross_entropy']
    """
    return list(_ENTRIES)


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
