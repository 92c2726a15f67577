"""Who steps what, at which rate, and that a restored state steps alike."""

from __future__ import annotations

import copy

import torch

from earnest.training.muon import Muon
from earnest.training.optimisers import Optimisers


def _model() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 2))


def _optimisers(model: torch.nn.Module, muon_rate: float = 0.02) -> Optimisers:
    return Optimisers(model.named_parameters(), lambda _, p: p.ndim == 2, muon_rate=muon_rate, learning_rate=0.01)


def _step(model: torch.nn.Module, optimisers: Optimisers, factor: float = 1.0) -> None:
    model(torch.ones(3, 6)).square().sum().backward()
    optimisers.step(factor)


def test_muon_takes_the_matrices_and_adamw_the_rest() -> None:
    model = _model()
    states = _optimisers(model).state_dict()
    assert [len(state["param_groups"][0]["params"]) for state in states] == [4, 2]
    assert "momentum" in states[1]["param_groups"][0] and len(_optimisers(model, 0.0).state_dict()) == 1
    assert isinstance(_optimisers(model)._parts[1], Muon)


def test_a_factor_of_zero_changes_nothing_and_clears_the_gradients() -> None:
    model = _model()
    before = copy.deepcopy(model.state_dict())
    optimisers = _optimisers(model)
    _step(model, optimisers, 0.0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    _step(model, optimisers)
    assert not any(torch.equal(before[name], value) for name, value in model.named_parameters())


def test_frozen_parameters_are_left_out() -> None:
    model = _model()
    model[0].requires_grad_(False)
    assert len(_optimisers(model).parameters) == 4


def test_a_restored_state_steps_alike() -> None:
    model, other = _model(), _model()
    optimisers, restored = _optimisers(model), _optimisers(other)
    _step(model, optimisers)
    other.load_state_dict(model.state_dict())
    restored.load_state_dict(copy.deepcopy(optimisers.state_dict()))
    _step(model, optimisers, 0.5)
    _step(other, restored, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
