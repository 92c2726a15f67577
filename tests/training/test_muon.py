import torch

from earnest.training.muon import Muon, orthogonalised


def test_orthogonalised_has_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 8, 8), (2, 16, 4), (2, 4, 16)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert float(values.min()) > 0.3
        assert float(values.max()) < 1.3


def test_it_minimises_a_quadratic() -> None:
    torch.manual_seed(0)
    target = torch.randn(6, 4)
    weight = torch.nn.Parameter(torch.zeros(6, 4))
    optimiser = Muon([weight], 0.05, weight_decay=0.0)
    first = float((target**2).sum())
    for _ in range(200):
        optimiser.zero_grad()
        ((weight - target) ** 2).sum().backward()
        optimiser.step()
    assert float(((weight.detach() - target) ** 2).sum()) < 0.05 * first


def test_a_kernel_is_stepped_as_the_matrix_it_is() -> None:
    torch.manual_seed(0)
    start, gradient = torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    kernel, matrix = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.flatten(1).clone())
    kernel.grad, matrix.grad = gradient.clone(), gradient.flatten(1)
    Muon([kernel], 0.1).step()
    Muon([matrix], 0.1).step()
    assert torch.equal(kernel.flatten(1), matrix)
    assert not torch.equal(kernel, start)
