"""The ground floor: signals. A `Clip`, the edits that make other clips of it, and the voices that speak one.

Nothing here knows of models or questions, and nothing here imports more than numpy until a file is decoded,
resampled or spoken.
"""

from earnest.audio.clip import Clip
from earnest.audio.speakers import EspeakSpeaker, Speaker

__all__ = ["Clip", "EspeakSpeaker", "Speaker"]
