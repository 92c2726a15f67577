from earnest.world.surrogates import Segment, multi_surrogate, scene_surrogate, single_surrogate
from earnest.world.timeline import Event, Scene


def test_single_golden_strings_of_the_paper() -> None:
    speech = single_surrogate(
        "I think I have a doctor's appointment.",
        3,
        spoken=True,
        details={"emotion": "Disgust", "gender": "Female", "age": "29", "language": "English"},
    )
    assert speech == (
        "[00:00-00:03] I think I have a doctor's appointment. "
        "(duration: 3s, emotion: Disgust, gender: Female, age: 29, language: English)"
    )
    music = single_surrogate("Music, Exciting music", 10, spoken=False)
    assert music == "[00:00-00:10] |Music, Exciting music| (duration: 10s)"


def test_multi_names_speakers_in_order_and_counts_them() -> None:
    segments = [
        Segment(0, 2, "hello", True, 0, {"Gender": "female"}),
        Segment(2, 65, "good morning", True, 1),
        Segment(65, 66, "door"),
    ]
    assert multi_surrogate(segments, 70) == (
        "[00:00-00:02, the first speaker, gender: female] hello [00:02-01:05, the second speaker] good morning "
        "[01:05-01:06] |door| (duration: 70s, the number of speakers: 2)"
    )


def test_scene_rounds_starts_down_and_ends_up() -> None:
    scene = Scene(
        "s",
        7.2,
        (
            Event("sound", "dog", 0.4, 1.1),
            Event("speech", "seven", 1.9, 2.4, speaker="woman"),
            Event("music", "piano", 3.0, 4.9, pitch="low", tempo="fast"),
            Event("speech", "red", 6.0, 6.5, speaker="man"),
        ),
    )
    assert scene_surrogate(scene) == (
        "[00:00-00:02] |dog| [00:01-00:03, the first speaker, gender: woman] seven "
        "[00:03-00:05] |piano, low, fast| [00:06-00:07, the second speaker, gender: man] red "
        "(duration: 8s, the number of speakers: 2)"
    )
