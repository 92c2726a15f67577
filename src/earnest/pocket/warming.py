"""An align head first writes the streams that the LLM was taught to read: through the LLM alone words stay at chance.

The stage `adapters` does the same in its own loop; this is for models of other ears and fusions, in ablations.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from earnest.fused import FusedModel
from earnest.pocket.adapters import AdapterSettings, Streamed, warm_loss
from earnest.training.optimisers import Optimisers
from earnest.training.schedule import one_cycle


def warm_up(
    model: FusedModel,
    clips: Sequence[Streamed],
    settings: AdapterSettings,
    *,
    frozen: Sequence[str] = (),
    log: Callable[[str], None] = print,
) -> None:
    """Trains the first pass, in place, for the settings' warm steps.

    Args:
        model: with an align head.
        clips: frames in the order of the model's encoders, and streams.
        settings: numbers of the stage `adapters`.
        frozen: names, within the pass, of modules that stay as they are.
        log: one line of progress.
    """
    rng = random.Random(settings.seed)
    audio_pass = model.passes["first"]
    for name, parameter in audio_pass.named_parameters():
        parameter.requires_grad_(name.partition(".")[0] not in frozen)
    optimisers = Optimisers(
        audio_pass.named_parameters(),
        lambda _, parameter: parameter.ndim == 3,
        muon_rate=settings.muon_rate,
        learning_rate=settings.learning_rate,
        weight_decay=0.02,
    )
    running = 0.0
    for step in range(settings.warm_steps):
        chosen = rng.sample(range(len(clips)), min(len(clips), settings.batch_size))
        loss = warm_loss(model, [clips[place] for place in chosen])
        loss.backward()
        optimisers.step(one_cycle(step, settings.warm_steps))
        running += loss.item()
        if step % 100 == 99:
            log(f"warm step {step + 1} loss {running / 100:.4f}")
            running = 0.0
