from pathlib import Path

import torch

from earnest.training.checkpoint import Checkpointer


def test_state_round_trip_and_clear(tmp_path: Path) -> None:
    checkpoint = Checkpointer(tmp_path / "a" / "c.pt", every=3)
    assert checkpoint.load() is None
    assert [step for step in range(7) if checkpoint.due(step)] == [2, 5]
    checkpoint.save({"step": 3, "weight": torch.ones(2), "queue": [[1], [2]]})
    state = checkpoint.load()
    assert state is not None
    assert state["queue"] == [[1], [2]]
    checkpoint.clear()
    assert checkpoint.load() is None
