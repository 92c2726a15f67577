"""One file for each architecture, found by the `model_type` of its config.json."""
