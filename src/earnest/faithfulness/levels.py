"""What was said at one value of a probe, measured once for tables, curves and metrics alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from earnest.faithfulness.criteria import mean, share
from earnest.faithfulness.measures import Row, Rows, judged, same
from earnest.faithfulness.probes import CLEAN
from earnest.finding import Metric
from earnest.grading import Outcome


@dataclass(frozen=True)
class Level:
    """Rates of a set of rows, one an item.

    Attributes:
        n: items.
        accuracy: share that is right.
        consistency: share with the clean answer.
        abstained: share that abstains.
        claims: share that states something as heard; None where nobody judged.
        agreement: mean J with the clean chain; None where nobody judged.
    """

    n: int
    accuracy: Metric
    consistency: Metric
    abstained: Metric
    claims: Metric | None
    agreement: Metric | None


class Levels:
    """Levels of all probes, each measured when it is first asked for.

    Args:
        rows: all that was said.
        seed: of the bootstrap.
    """

    def __init__(self, rows: Rows, seed: int) -> None:
        self.rows = rows
        self.clean = rows.at(CLEAN)
        self.seed = seed
        self._found: dict[tuple[str, float], Level] = {}

    def at(self, probe: str, value: float = 0.0) -> Level | None:
        """Of a probe at one value; None where nothing was asked."""
        own = self.rows.at(probe, value)
        if own and (probe, value) not in self._found:
            self._found[probe, value] = self.of(own)
        return self._found.get((probe, value))

    def of_probe(self, probe: str) -> dict[float, Level]:
        """Of a probe at all of its values, ascending."""
        found = {value: self.at(probe, value) for value in self.rows.values(probe)}
        return {value: level for value, level in found.items() if level is not None}

    def of(self, own: Mapping[int, Row]) -> Level:
        """Of any rows, by item."""
        claims = {item: bool(claim) for item, claim in judged(own, lambda row: row.claims).items()}
        agreement = judged(own, lambda row: row.agreement)
        return Level(
            len(own),
            self._share_of(own, Outcome.CORRECT),
            share(same(own, self.clean), self.clean, self.seed),
            self._share_of(own, Outcome.ABSTAINED),
            share(claims, self.clean, self.seed) if claims else None,
            mean(agreement, self.clean, self.seed, "J") if agreement else None,
        )

    def _share_of(self, own: Mapping[int, Row], outcome: Outcome) -> Metric:
        return share({item: row.record.outcome is outcome for item, row in own.items()}, self.clean, self.seed)
