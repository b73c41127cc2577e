"""Laws of the orthogonalised step."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nucleate.networks import equivariant
from nucleate.networks.unet import Architecture, GroupConvolution, UNet
from nucleate.training.optimiser import COEFFICIENTS, STEPS, AdamW, Muon, Optimiser, orthogonalised


def plain(matrix: torch.Tensor) -> torch.Tensor:
    """The iteration on the matrix itself."""
    a, b, c = COEFFICIENTS
    x = matrix / matrix.norm()
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 30), st.integers(0, 2**31))
def test_gram_iteration_is_the_iteration_on_the_matrix(rows: int, more: int, seed: int) -> None:
    matrix = torch.randn(rows, rows + more, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(orthogonalised([matrix])[0], plain(matrix), rtol=1e-8, atol=1e-8)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(12, 40), st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_length_does_not_matter_and_directions_stay(rows: int, columns: int, seed: int, factor: float) -> None:
    matrix = torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    once = orthogonalised([matrix])[0]
    torch.testing.assert_close(orthogonalised([factor * matrix])[0], once, rtol=1e-8, atol=1e-8)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ once @ vh.T  # diagonal where the directions are the matrix' own
    torch.testing.assert_close(inside, torch.diag(inside.diagonal()), rtol=0, atol=1e-8)
    assert bool((inside.diagonal() > 0).all())


def test_singular_values_within_the_promised_range_also_in_float32() -> None:
    values = np.geomspace(0.02, 1, 64)
    generator = torch.Generator().manual_seed(0)
    u = torch.linalg.qr(torch.randn(64, 64, generator=generator))[0]
    v = torch.linalg.qr(torch.randn(576, 64, generator=generator))[0]
    matrix = u @ torch.diag(torch.from_numpy(values).float()) @ v.T
    found = torch.linalg.svdvals(orthogonalised([matrix / np.sqrt((values**2).sum())])[0])
    assert float(found.min()) > 0.3 and float(found.max()) < 1.3
    torch.testing.assert_close(orthogonalised([matrix])[0], plain(matrix), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 3])
def test_of_a_matrix_of_low_rank_only_its_own_directions_move(rank: int) -> None:
    """Also in float32, where the eigenvalues that should be zero are not."""
    generator = torch.Generator().manual_seed(4)
    matrix = torch.randn(64, rank, generator=generator) @ torch.randn(rank, 576, generator=generator)
    values = torch.linalg.svdvals(orthogonalised([matrix])[0])
    assert float(values[:rank].min()) > 0.6 and float(values[0]) < 1.3
    assert float(values[rank:].max()) < 0.02


def test_zeros_stay_zeros() -> None:
    assert not orthogonalised([torch.zeros(3, 9)])[0].any()


def whole(weight: torch.Tensor) -> torch.Tensor:
    """The matrix of the kernel that is made from a weight: a row an output of all eight groups."""
    outputs, inputs, size, _ = weight.shape
    rows = equivariant.group_convolution(outputs, size)(weight.permute(0, 2, 3, 1).reshape(-1, inputs // 8))
    return rows.view(8 * outputs, -1)


@pytest.mark.parametrize("shape", [(4, 16, 3, 3), (2, 24, 2, 2), (3, 8, 1, 1), (1, 8, 3, 3)])
def test_a_step_is_its_formula(shape: tuple[int, int, int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(shape, generator=generator)
    kernel = nn.Parameter(start.clone())
    optimiser = Muon([kernel], momentum=0.9)
    velocity, expected = torch.zeros(shape), start.clone()
    for _ in range(3):
        gradient = torch.randn(shape, generator=generator)
        kernel.grad = gradient.clone()
        optimiser.step(0.1)
        velocity = 0.9 * velocity + 0.1 * gradient
        ahead = 0.1 * gradient + 0.9 * velocity
        rows = plain(whole(ahead))[: shape[0]]
        step = rows.reshape(shape[0], *shape[2:], shape[1]).permute(0, 3, 1, 2)
        expected = expected - 0.1 * step
    torch.testing.assert_close(kernel.detach(), expected, rtol=1e-4, atol=1e-5)


def test_matrices_of_one_size_and_others_do_not_mix() -> None:
    generator = torch.Generator().manual_seed(2)
    shapes = [(4, 9), (6, 6), (4, 30), (6, 11), (1, 5)]
    matrices = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
    for one, found in zip(matrices, orthogonalised(matrices), strict=True):
        torch.testing.assert_close(found, plain(one), rtol=1e-8, atol=1e-8)


def test_a_kernel_without_a_gradient_stays() -> None:
    kernel = nn.Parameter(torch.ones(2, 8, 1, 1))
    Muon([kernel]).step(0.02)
    assert bool((kernel == 1).all())


def test_adamw_is_that_of_torch_to_the_last_bit() -> None:
    generator = torch.Generator().manual_seed(4)
    shapes = [(3, 8, 3, 3), (5,), (2, 2)]
    own, other = ([nn.Parameter(torch.ones(shape)) for shape in shapes] for _ in range(2))
    mine = AdamW([(own[:1], 0.02), (own[1:], 0.0)])
    theirs = torch.optim.AdamW(
        [{"params": other[:1], "weight_decay": 0.02}, {"params": other[1:], "weight_decay": 0.0}], fused=True
    )
    for step in range(4):
        for one, two in zip(own, other, strict=True):
            gradient = torch.randn(one.shape, generator=generator)
            one.grad, two.grad = (gradient, gradient.clone()) if step != 2 or one.ndim > 1 else (None, None)
        theirs.param_groups[0]["lr"] = theirs.param_groups[1]["lr"] = 0.01 * (step + 1)
        mine.step(0.01 * (step + 1))
        theirs.step()
    for one, two in zip(own, other, strict=True):
        assert torch.equal(one, two)


def test_training_does_not_wait_for_the_compiler_of_torch() -> None:
    script = """
import sys
from nucleate.networks.unet import Architecture, UNet
from nucleate.training.optimiser import Optimiser
import torch
network = UNet(Architecture(widths=(8, 8)))
network(torch.ones(1, 1, 16, 16)).sum().backward()
Optimiser(network, 0.02).step(0.02)
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_it_solves_what_is_badly_scaled() -> None:
    """Least squares whose directions differ ten-thousandfold in curvature."""
    scales = torch.logspace(-0.5, 1.5, 8).repeat(8)  # of the inputs, alike in all their groups
    kernel = nn.Parameter(torch.zeros(8, 64, 1, 1))
    goal = torch.randn(8, 64, generator=torch.Generator().manual_seed(3))
    optimiser = Muon([kernel])
    for step in range(300):
        difference = (kernel[:, :, 0, 0] - goal) * scales
        (gradient,) = torch.autograd.grad(difference.square().sum(), kernel)
        kernel.grad = gradient
        optimiser.step(0.3 * (1 - step / 300))
    assert float((kernel.detach()[:, :, 0, 0] - goal).abs().max()) < 0.1


def test_kernels_between_channels_move_by_muon_and_all_else_by_adamw() -> None:
    torch.manual_seed(0)
    network = UNet(Architecture(widths=(8, 16)))
    kernels = {id(one.weight) for one in network.modules() if isinstance(one, GroupConvolution)}
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    Optimiser(network, weight_decay=0.0).step(0.1)
    for name, parameter in network.named_parameters():
        moved = parameter.detach() - before[name]
        if id(parameter) in kernels:  # a row of an orthogonal matrix has length 1
            assert moved.flatten(1).norm(dim=1).mean() == pytest.approx(0.1, rel=0.3)
        else:  # the first step of Adam is the sign of the gradient, at a tenth of the rate
            torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.01), rtol=1e-3, atol=1e-5)
