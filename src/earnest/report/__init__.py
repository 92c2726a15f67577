"""Draws any `Finding` as one page of HTML that needs nothing but itself."""

from earnest.report.scorecard import Header, write_scorecard

__all__ = ["Header", "write_scorecard"]
