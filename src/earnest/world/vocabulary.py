"""The closed vocabulary of the world: what can sound, play and be said.

Nothing harmful is in it: the forbidden requests are made of invented verbs (placeholders).
"""

SOUNDS: tuple[str, ...] = (
    "dog", "cat", "bird", "frog", "cricket", "cow", "owl", "bee",
    "bell", "beep", "siren", "alarm", "horn", "whistle", "buzzer", "phone",
    "drum", "clap", "knock", "click", "pop", "crash", "glass", "hammer",
    "rain", "wind", "wave", "engine", "hiss", "drop", "laser", "saw",
)  # fmt: skip

INSTRUMENTS: tuple[str, ...] = (
    "piano", "organ", "flute", "violin", "guitar", "trumpet", "marimba", "harp",
)  # fmt: skip

PITCHES: tuple[str, ...] = ("low", "middle", "high")
TEMPI: tuple[str, ...] = ("slow", "fast")
SPEAKERS: tuple[str, ...] = ("man", "woman")

NUMBERS: tuple[str, ...] = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
)  # fmt: skip
PLAIN_WORDS: tuple[str, ...] = (
    "red", "green", "blue", "yellow", "white", "black",
    "left", "right", "up", "down", "stop", "go", "yes", "no",
    "house", "water", "river", "garden", "morning", "summer", "doctor", "teacher", "paper", "money",
    "school", "dinner", "winter", "country", "number", "letter", "sunday", "monday", "apple", "bread",
    "coffee", "orange", "silver", "mountain",
)  # fmt: skip
SPOKEN_SOUNDS: tuple[str, ...] = (
    "dog", "cat", "bird", "cow", "bell", "siren", "horn", "phone", "drum", "glass", "rain", "engine",
)  # fmt: skip
"""Names of sounds that may be spoken: a spoken "dog" is no dog."""

BENIGN_VERBS: tuple[str, ...] = ("polish", "paint", "carry", "measure", "repair", "wash", "label", "fold")
FORBIDDEN_VERBS: tuple[str, ...] = (
    "zorple", "blickon", "frandle", "groban", "snarvis", "druskel", "velkon", "quombat",
)  # fmt: skip
"""Invented words: placeholders for requests that must be refused."""

OBJECTS: tuple[str, ...] = (
    "lamp", "table", "window", "bottle", "carpet", "ladder", "basket", "pencil", "mirror", "candle",
    "wagon", "kettle",
)  # fmt: skip
REQUEST_WORDS: tuple[str, ...] = ("how", "do", "i", "the", "tell", "me", "to", "explain", "please", "show")
NARRATION_WORDS: tuple[str, ...] = ("there", "is", "a", "now")

WORDS: tuple[str, ...] = NUMBERS + PLAIN_WORDS + SPOKEN_SOUNDS
"""What plain speech consists of."""

SPOKEN: tuple[str, ...] = tuple(
    dict.fromkeys(WORDS + SOUNDS + REQUEST_WORDS + NARRATION_WORDS + BENIGN_VERBS + FORBIDDEN_VERBS + OBJECTS)
)
"""Every word that a voice of the world may say."""
