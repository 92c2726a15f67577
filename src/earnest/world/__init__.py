"""A synthetic audio world with ground truth: scenes, their audio, their text, questions about them."""
