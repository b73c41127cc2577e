"""Losses as modules, those of whole regions and of sets of embeddings; see `modules`."""

from __future__ import annotations

from typing import final

from nucleate.losses.boundary import boundary
from nucleate.losses.contrastive import clip, decoupled, info_nce, nt_xent, siglip
from nucleate.losses.labelled_pairs import dense_info_nce, sup_con
from nucleate.losses.lovasz import lovasz_hinge, lovasz_softmax
from nucleate.losses.modules import Loss
from nucleate.losses.overlap import dice, focal_tversky, generalized_dice, jaccard, tversky
from nucleate.losses.redundancy import barlow_twins, vicreg


@final
class Dice(Loss):
    """`dice` as a module."""

    function = staticmethod(dice)


@final
class GeneralizedDice(Loss):
    """`generalized_dice` as a module."""

    function = staticmethod(generalized_dice)


@final
class Jaccard(Loss):
    """`jaccard` as a module."""

    function = staticmethod(jaccard)


@final
class Tversky(Loss):
    """`tversky` as a module."""

    function = staticmethod(tversky)


@final
class FocalTversky(Loss):
    """`focal_tversky` as a module."""

    function = staticmethod(focal_tversky)


@final
class LovaszHinge(Loss):
    """`lovasz_hinge` as a module."""

    function = staticmethod(lovasz_hinge)


@final
class LovaszSoftmax(Loss):
    """`lovasz_softmax` as a module."""

    function = staticmethod(lovasz_softmax)


@final
class Boundary(Loss):
    """`boundary` as a module."""

    function = staticmethod(boundary)


@final
class InfoNCE(Loss):
    """`info_nce` as a module."""

    function = staticmethod(info_nce)


@final
class CLIP(Loss):
    """`clip` as a module."""

    function = staticmethod(clip)


@final
class NTXent(Loss):
    """`nt_xent` as a module."""

    function = staticmethod(nt_xent)


@final
class SupCon(Loss):
    """`sup_con` as a module."""

    function = staticmethod(sup_con)


@final
class SigLIP(Loss):
    """`siglip` as a module."""

    function = staticmethod(siglip)


@final
class Decoupled(Loss):
    """`decoupled` as a module."""

    function = staticmethod(decoupled)


@final
class DenseInfoNCE(Loss):
    """`dense_info_nce` as a module."""

    function = staticmethod(dense_info_nce)


@final
class BarlowTwins(Loss):
    """`barlow_twins` as a module."""

    function = staticmethod(barlow_twins)


@final
class VICReg(Loss):
    """`vicreg` as a module."""

    function = staticmethod(vicreg)
