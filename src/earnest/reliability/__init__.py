"""Reliability: knowing when to say "I don't know" (arXiv 2505.19294)."""
