"""Alignment: ears for a frozen reasoning LLM, taught by its own rephrased replies (ALARM, arXiv 2603.09556)."""
