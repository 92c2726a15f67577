"""Harmful requests declined, benign ones answered."""
