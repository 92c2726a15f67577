import torch

from earnest.pocket.batches import IGNORE, PackEncoder, collate
from earnest.pocket.curriculum import Exchange, Pack
from earnest.pocket.stream import Slot, time_slot
from earnest.pocket.tokenizer import ASSISTANT, BLANK, END, build_tokenizer

TOKENIZER = build_tokenizer()
ENCODER = PackEncoder(TOKENIZER)


def test_only_replies_are_learned_and_nothing_else() -> None:
    pack = Pack("[00:00-00:01] |dog|", (Exchange("is there a dog?", "<answer> yes</answer>"), Exchange("hi", "bye.")))
    [sequence] = ENCODER.encode([pack])
    learned = TOKENIZER.decode([i for i, keep in zip(sequence.ids, sequence.learned, strict=True) if keep])
    assert learned == f"<answer> yes</answer>{END} bye.{END}"
    batch = collate([sequence])
    before = [TOKENIZER.convert_ids_to_tokens(int(i)) for i in batch.ids[0]]
    first = next(k for k, target in enumerate(batch.targets[0]) if int(target) != IGNORE)
    assert before[first] == ASSISTANT
    assert int(batch.targets[0, first]) == TOKENIZER.convert_tokens_to_ids("<answer>")


def test_stream_slots_keep_their_mixture_and_markers_stay_clean() -> None:
    slots = [time_slot(0), Slot(BLANK, "▁|dog|", 0.3)]
    [sequence] = ENCODER.encode([Pack(slots, (Exchange("hi", "bye."),))])
    place = sequence.ids.index(TOKENIZER.convert_tokens_to_ids(BLANK))
    assert sequence.others[place] == TOKENIZER.convert_tokens_to_ids("▁|dog|")
    assert sequence.shares[place] == 0.3
    assert [TOKENIZER.convert_ids_to_tokens(i) for i, s in zip(sequence.ids, sequence.streamed, strict=True) if s] == [
        BLANK
    ]


def test_padding_is_masked_and_never_a_target() -> None:
    packs = [Pack(None, (Exchange("hi", "bye."),)), Pack(None, (Exchange("how are you?", "i am fine, thank you."),))]
    batch = collate(ENCODER.encode(packs))
    assert batch.ids.shape == batch.targets.shape == batch.mask.shape
    assert bool((batch.targets[~batch.mask] == IGNORE).all())
    assert not torch.equal(batch.mask[0], batch.mask[1])
