"""The closed language of pocket's text LLM beyond the world's questions: instructions, requests, chat."""

from __future__ import annotations

from earnest.world.vocabulary import BENIGN_VERBS, OBJECTS

# --- instructions that may follow a question --------------------------------------------------------
DIRECT = "answer directly."
SEGMENTS = "refer to the segments."
UNSURE = "if you are not sure, say i don't know."
FORCED = "you must choose one."

# --- tasks over a surrogate or a clip ---------------------------------------------------------------
DESCRIBE: tuple[str, ...] = ("describe the audio.", "what do you hear?", "caption the audio.")
TRANSCRIBE: tuple[str, ...] = ("transcribe the speech.", "what is said?", "write down the words.")
CAPTION_MUSIC: tuple[str, ...] = ("describe the music.", "caption the music.")
CLASSIFY: tuple[str, ...] = ("is this sound, music or speech?", "classify the audio.")
FIND = "find: {names}."
NEXT = "what comes next: {names}."
LIST = "what are the {kinds}?"
LIST_UP_TO = "what are the {kinds} up to the {name}?"
LIST_FROM = "what are the {kinds} from the {name} on?"
LIST_SPEAKERS = "who are the speakers?"
FIND_EVERY = "find every: {names}."
KINDS: dict[str, str] = {"sound": "sounds", "music": "instruments", "speech": "words"}

# --- requests: how to do something with an object -----------------------------------------------------
AUDIO_INSTRUCTION = "give detailed steps for the question in the audio."
TEXT_INSTRUCTION = "give detailed steps for the question."
POLICY_HINT = "the question breaks the policy, so refuse it."
REQUEST_INSTRUCTIONS: tuple[str, ...] = (
    "answer the audio.",
    "respond to the question you hear.",
    "reply to the speaker.",
    "listen and answer.",
    "give a full answer to the speaker.",
    "respond to the audio.",
    "answer the question you hear.",
    "help the speaker.",
    "listen and respond.",
    "reply to the audio.",
)
"""Neutral instructions for a spoken request (RRS, arXiv 2505.19670, the prompt pool)."""

REFUSAL = "sorry, i cannot help with that."
TOOLS: tuple[str, ...] = ("cloth", "brush", "rope", "ruler", "screw", "sponge", "sticker", "board")
STEPS: tuple[str, ...] = ("rub", "cover", "lift", "check", "fix", "rinse", "mark", "bend")
PLACES: tuple[str, ...] = (
    "shelf", "kitchen", "wall", "box", "floor", "yard", "market", "desk", "hall", "church", "barn", "stove",
)  # fmt: skip


def steps_for(verb: str, thing: str) -> str:
    """The helpful reply to a benign request: tool and step follow from the verb, the place from the object."""
    number = BENIGN_VERBS.index(verb)
    place = PLACES[OBJECTS.index(thing)]
    return f"first take a {TOOLS[number]} to the {place}, then {STEPS[number]} the {thing}."


# --- self-rephrasing (ALARM, arXiv 2603.09556, section 3) ---------------------------------------------
REPHRASE = "rephrase as if you had heard it: {reply}"

CHAT: tuple[tuple[str, str], ...] = (
    ("hello", "hello, i am pocket. ask me about a sound."),
    ("hi", "hello, i am pocket. ask me about a sound."),
    ("who are you?", "i am pocket, a small model that listens."),
    ("what are you?", "i am pocket, a small model that listens."),
    ("what can you do?", "i can answer questions about sounds, music and speech."),
    ("thank you", "you are welcome."),
    ("thanks", "you are welcome."),
    ("good morning", "good morning, what should i listen to?"),
    ("bye", "good bye."),
    ("how are you?", "i am fine, thank you."),
)


def corpus() -> list[str]:
    """Every fixed text of this module, for the tokenizer's vocabulary."""
    texts = [
        DIRECT,
        SEGMENTS,
        UNSURE,
        FORCED,
        FIND,
        NEXT,
        LIST,
        LIST_UP_TO,
        LIST_FROM,
        LIST_SPEAKERS,
        FIND_EVERY,
        *KINDS.values(),
        AUDIO_INSTRUCTION,
        TEXT_INSTRUCTION,
        POLICY_HINT,
        REFUSAL,
    ]
    texts += [*DESCRIBE, *TRANSCRIBE, *CAPTION_MUSIC, *CLASSIFY, *REQUEST_INSTRUCTIONS, REPHRASE]
    texts += [steps_for(verb, thing) for verb in BENIGN_VERBS for thing in OBJECTS]
    texts += [text for pair in CHAT for text in pair]
    return texts
