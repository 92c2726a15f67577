"""Linear layers by oneDNN: the same values and gradients as torch's own, within their context alone."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F

from earnest.engines import linear as by_onednn
from earnest.engines.linear import fast_linear, products
from earnest.training.muon import orthogonalised

PLAIN = F.linear
SHAPES = [((1, 1), 512, 384), ((3, 700), 192, 512), ((2111,), 96, 192), ((2, 5, 31), 512, 512), ((64,), 256, 512)]


def close(one: torch.Tensor, two: torch.Tensor) -> None:
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("rows", "width", "out"), SHAPES)
@pytest.mark.parametrize("biased", [False, True])
def test_values_and_gradients_are_those_of_torch(
    rows: tuple[int, ...], width: int, out: int, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[torch.Tensor] = []
    real = by_onednn.product

    def counted(one: torch.Tensor, two: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        called.append(one)
        return real(one, two, bias)

    monkeypatch.setattr(by_onednn, "product", counted)
    torch.manual_seed(0)
    layer = torch.nn.Linear(width, out, bias=biased)
    given = torch.randn(*rows, width, requires_grad=True)
    slope = torch.randn(*rows, out)

    def grown() -> list[torch.Tensor]:
        given.grad = None
        layer.zero_grad()
        said = layer(given)
        said.backward(slope)
        return [said.detach(), given.grad, *(parameter.grad for parameter in layer.parameters())]  # pyright: ignore[reportReturnType]

    wanted = grown()
    assert not called
    with fast_linear(anyhow=True):
        found = grown()
        assert len(called) == 3, "forward, to the input, to the weights"
        with torch.inference_mode():
            close(layer(given), wanted[0])
        assert len(called) == 4
    for one, two in zip(found, wanted, strict=True):
        assert one.shape == two.shape
        close(one, two)


def test_a_frozen_layer_and_expanded_slopes() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(512, 512)
    layer.requires_grad_(False)
    given = torch.randn(2, 300, 512)[:, ::3].requires_grad_()
    layer(given).sum().backward()
    wanted, given.grad = given.grad, None
    with fast_linear(anyhow=True):
        layer(given).sum().backward()
    assert given.grad is not None and wanted is not None
    close(given.grad, wanted)


def test_what_does_not_suit_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError

    monkeypatch.setattr(by_onednn, "product", refuse)
    wide = torch.randn(512, 512)
    with fast_linear(anyhow=True):
        F.linear(torch.randn(4, 32), torch.randn(64, 32))
        F.linear(torch.randn(4, 512, dtype=torch.float64), wide.double())
        F.linear(torch.randn(4, 512).bfloat16(), wide.bfloat16())
        F.linear(torch.randn(0, 512), wide)
        F.linear(torch.randn(4, 512), wide[0])
        with torch.autocast("cpu", torch.bfloat16):
            assert F.linear(torch.randn(4, 512), wide).dtype == torch.bfloat16
        with pytest.raises(AssertionError):
            F.linear(torch.randn(4, 512), wide)


def test_it_holds_within_the_context_alone_and_until_the_last_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_onednn, "pays", lambda: False)
    with fast_linear():
        assert F.linear is PLAIN
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with fast_linear(anyhow=True):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with pytest.raises(ValueError, match="on the way"), fast_linear(anyhow=True):
        thread.start()
        assert inside.wait(10)
        raise ValueError("on the way")
    assert F.linear is by_onednn.linear, "the other thread is within"
    leave.set()
    thread.join()
    assert F.linear is PLAIN


def test_many_rows_take_few_numbers() -> None:
    numbers = {len(by_onednn.padded(torch.empty(rows, 1))) for rows in range(1, 4097)}
    assert len(numbers) == 15 + 8 * 8 + 1
    assert all(rows <= len(by_onednn.padded(torch.empty(rows, 1))) <= 1.125 * rows for rows in range(1, 4097))


@pytest.mark.parametrize("shape", [(3, 192, 512), (2, 512, 192), (2, 192, 192)])
def test_muon_is_the_same(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    given = torch.randn(shape)
    wanted = orthogonalised(given)
    with fast_linear(anyhow=True):
        close(orthogonalised(given), wanted)
        assert products(given, given).shape == (shape[0], shape[1], shape[1])
