import json
import random
from pathlib import Path

from earnest.pocket.clips import SCENES
from earnest.pocket.targets import LEAK, Target, _judge, _scenes_in, grouped, users_of  # pyright: ignore
from earnest.world.scenes import plan_request, plan_scene
from earnest.world.vocabulary import FORBIDDEN_VERBS

RAW = "<think> the description says dog [00:03].</think><answer> dog</answer>"
GOOD = "<answer> [think] i hear dog [00:03]. [/think] [answer] dog [/answer]</answer>"


def test_a_rephrased_reply_gets_its_tags_back() -> None:
    target, reason = _judge(RAW, GOOD, leaks=True)
    assert reason == "rephrased"
    assert target == "<think> i hear dog [00:03].</think><answer> dog</answer>"


def test_rows_are_rejected_with_their_reason() -> None:
    assert _judge(RAW, GOOD[9:], leaks=True) == (None, "no answer tag")
    assert _judge(RAW, GOOD.replace("i hear", "the text says"), leaks=True) == (None, "still leaks")
    assert _judge(RAW + " dog" * 20, GOOD, leaks=True)[1] == "length"
    assert _judge(RAW, GOOD.replace("[think]", ""), leaks=True)[1] == "tags"
    assert _judge(RAW, None, leaks=True) == (None, "cut")
    assert _judge(None, None, leaks=False) == (None, "cut")
    assert _judge("fine", None, leaks=False) == ("fine", "no leak")


def test_a_torn_file_resumes_at_the_last_whole_clip(tmp_path: Path) -> None:
    path = tmp_path / "targets.jsonl"
    rows = [Target(scene, f"q{k}", "a", "a", "no leak") for scene in (0, 0, 1, 1, 2) for k in (0,)]
    text = "".join(json.dumps(row.__dict__) + "\n" for row in rows)
    path.write_text(text + '{"scene": 2, "us')
    assert _scenes_in(path) == 2
    assert [json.loads(line)["scene"] for line in path.read_text().splitlines()] == [0, 0, 1, 1]


def test_groups_hold_only_what_is_learned() -> None:
    rows = [Target(0, "a", "b", None, "length"), Target(1, "a", "b", "b", "no leak")]
    assert [number for number, _ in grouped(rows)] == [1]


def test_alignment_never_sees_a_forbidden_request() -> None:
    rng = random.Random(0)
    for index in range(0, 200, 5):
        scene = plan_request(rng, "train", index)
        assert not set(scene.events[0].name.split()) & set(FORBIDDEN_VERBS)
    assert set(SCENES) == {"ears", "adapters"}


def test_users_are_distinct_and_leak_free() -> None:
    rng = random.Random(1)
    for index in range(50):
        users = users_of(plan_scene(rng, index=index), rng, 5)
        assert len(set(users)) == 5
        assert not any(LEAK.search(user) for user in users if not user.startswith("caption"))
