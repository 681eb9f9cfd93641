"""How many targets a region holds: what its class promises, corrected by what was found there."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgeperc.search.prior import CLASSES, region_weights

FLOOR = 0.02
"""Share of the promised targets that is spread over the whole field, whatever the classes."""
TRUST = 2.0
"""Weight of the promise: it counts like this share of the field, searched once."""
DOUBT = 0.1
"""Probability, before anything was seen, that the classes mean nothing and targets are anywhere."""
FALSE_ALARMS = 3e-5
"""False detections of a look in a cell of the grid."""
MEMORY_S = 60.0
LOG_ODDS_LIMIT = 8.0


class RegionRates:
    """Expected targets in an unseen cell of each region, learned from hits and from empty looks.

    Two hypotheses: that the classes of regions tell where targets are, or that targets are
    anywhere. Under both, a rate is the mean of a Gamma distribution: (promised + found) / (area
    promised + area searched). Each look shifts the odds between the two by how well they foretold
    what it found. Areas are in cells of whatever map the caller uses.
    """

    def __init__(self, expected: float, cell_area: float) -> None:
        self._expected = expected
        self._false_alarms = FALSE_ALARMS * cell_area
        self._hits = np.zeros(CLASSES)
        self._searched = np.zeros(CLASSES)
        self._log_odds = math.log((1 - DOUBT) / DOUBT)
        self._area = np.zeros(CLASSES)
        self._promised = np.zeros(CLASSES)
        self._by_class = np.zeros(CLASSES)
        self._anywhere = 0.0
        self.rates = np.zeros(CLASSES)

    @property
    def trust(self) -> float:
        """Probability that the classes tell where targets are."""
        return 1 / (1 + math.exp(-self._log_odds))

    def regions(self, labels: NDArray[np.uint8], weights: Mapping[int, float]) -> None:
        """Areas and promises of a map of regions."""
        area = np.bincount(labels.ravel(), minlength=CLASSES).astype(np.float64)
        share = area / area.sum()
        weight = np.where(area > 0, region_weights(weights), 0.0)
        weight = weight / weight.sum() if weight.sum() > 0 else share
        self._area = area
        self._promised = self._expected * ((1 - FLOOR) * weight + FLOOR * share)
        self.renew()

    def looked(self, searched: NDArray[np.float64]) -> None:
        """Learn from a look, before what it found.

        searched: (256,) unseen cells by label, times the probability of detection.
        """
        self._searched += searched
        self._log_odds -= float((self._by_class - self._anywhere) @ searched)
        self._log_odds = min(max(self._log_odds, -LOG_ODDS_LIMIT), LOG_ODDS_LIMIT)

    def found(self, labels: NDArray[np.uint8], unseen: NDArray[np.float32]) -> None:
        """Learn from targets found anew. labels, unseen: of the cells that they were in."""
        by_class, anywhere, false = self._by_class, self._anywhere, self._false_alarms
        for label, left in zip(labels.tolist(), unseen.tolist(), strict=True):
            ratio = (by_class[label] * left + false) / (anywhere * left + false)
            self._log_odds += math.log(ratio)
            self._hits[label] += 1
        self._log_odds = min(max(self._log_odds, -LOG_ODDS_LIMIT), LOG_ODDS_LIMIT)

    def forget(self, dt_s: float) -> None:
        """Let old evidence fade."""
        kept = math.exp(-dt_s / MEMORY_S)
        self._hits *= kept
        self._searched *= kept

    def renew(self) -> NDArray[np.float64]:
        """The rates (256,) by what was learned until now."""
        promised, area = TRUST * self._promised, TRUST * self._area
        self._by_class = (promised + self._hits) / np.maximum(area + self._searched, 1e-9)
        total = (promised.sum() + self._hits.sum()) / max(area.sum() + self._searched.sum(), 1e-9)
        self._anywhere = float(total)
        trust = self.trust
        self.rates = trust * self._by_class + (1 - trust) * self._anywhere
        return self.rates
