"""Re-listening: reasoning that goes back to the audio, segment by segment (Echo, arXiv 2602.11909)."""
