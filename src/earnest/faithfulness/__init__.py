"""Is the reasoning grounded in the audio, and does the answer rest on it? (arXiv 2509.22363.)"""
