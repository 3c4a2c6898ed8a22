"""Which configurations may be recommended, which of them is, and which need more chunks before that is certain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.judge import stats as evalstats
from turbotool.evaluation.judge.finding import Equivalence, chunks_more
from turbotool.evaluation.judge.interval import Interval, ratio_interval
from turbotool.evaluation.judge.looks import Looks
from turbotool.evaluation.judge.stats import paired
from turbotool.evaluation.judge.tolerance import INSIDE, OPEN, OUTSIDE, Standing, Tolerance
from turbotool.evaluation.measure.work import EvalLedger
from turbotool.evaluation.sweep import Corpus, Sweep
from turbotool.kv.cachetype import F16

YES, NO = "yes", "no"  # or OPEN


@dataclass(frozen=True)
class Criteria:
    """By what is judged: what may be lost, what is no difference, and the looks at which intervals have to hold."""

    looks: Looks
    tolerance: Tolerance = field(default_factory=Tolerance)
    equal: Equivalence = field(default_factory=Equivalence)


@dataclass(frozen=True)
class Question:
    """What is open about some configurations, and how many chunks of them answer it, about; 0 if that is not known."""

    about: tuple[Configuration, ...]
    chunks: int


@dataclass(frozen=True)
class Contest:
    """The configurations that are smaller than f16, judged by what was measured of them so far.

    `ends` are the chunks of texts that have fewer than were asked for.
    """

    sweep: Sweep
    ledger: EvalLedger
    criteria: Criteria
    ends: Mapping[Corpus, int] = field(default_factory=dict)

    @property
    def smaller(self) -> list[Configuration]:
        return [one for one in self.sweep.configurations if one.pair != F16]

    def found(self, configuration: Configuration) -> list[Measured]:
        """What was measured of it, on each text."""
        jobs = [self.sweep.job(corpus, configuration) for corpus in self.sweep.corpora]
        return [self.ledger.measured[job] for job in jobs if job in self.ledger.measured]

    def standing(self, configuration: Configuration) -> Standing:
        """The least favourable over the texts; outside if it has no finite figures on one of them."""
        found = self.found(configuration)
        if len(found) < len(self.sweep.corpora) or not all(one.is_finite for one in found):
            return Standing(OUTSIDE)
        tolerance, looks = self.criteria.tolerance, self.criteria.looks
        each = [tolerance.standing(one, self.sweep.ctx, looks.at(one.chunks)) for one in found]
        states = {one.state for one in each}
        more = max((one.chunks_more for one in each if one.chunks_more), default=None)
        state = OUTSIDE if OUTSIDE in states else OPEN if OPEN in states else INSIDE
        return Standing(state, all(one.near for one in each), more)

    def beats(self, one: Configuration, other: Configuration) -> str:
        """Whether the KLD of one is lower on every text, and on one by more than what makes no difference."""
        least = -self.criteria.equal.ln_kld
        between = self._ratios(one, other)
        known = [interval for interval in between if interval]
        if any(interval.low > 0 for interval in known):
            return NO
        if len(known) < len(between):
            return OPEN
        if all(interval.low > least for interval in known):
            return NO
        shown = any(interval.high < least for interval in known) and all(interval.high < 0 for interval in known)
        return YES if shown else OPEN

    def _ratios(self, one: Configuration, other: Configuration) -> list[Interval | None]:
        """Of their KLDs, on each text."""
        looks = self.criteria.looks
        return [
            ratio_interval(*paired(evalstats.kld, *pair), looks.at(min(measured.chunks for measured in pair)))
            for pair in zip(self.found(one), self.found(other), strict=True)
        ]

    def worth(self, configuration: Configuration) -> str:
        """Whether a rotation gains anything over none, where that was measured: a tolerance that one of them just
        meets and the other just misses is no difference."""
        plain = replace(configuration, rotation="off")
        if plain == configuration or not self._measured(plain):
            return YES
        return self.beats(configuration, plain)

    def _measured(self, configuration: Configuration) -> bool:
        found = self.found(configuration)
        return len(found) == len(self.sweep.corpora) and all(one.is_finite for one in found)

    def sizes(self) -> Iterator[list[Configuration]]:
        """The configurations by their bits, fewest first; those of one size in the order of the plan."""

        def bits(one: Configuration) -> float:
            return one.bits_per_value(self.sweep.model)

        for _, group in groupby(sorted(self.smaller, key=bits), key=bits):
            yield list(group)

    def is_winner(self, configuration: Configuration) -> bool:
        """Whether it may be recommended by what is known."""
        return self.standing(configuration).state == INSIDE and self.worth(configuration) == YES

    def is_possible(self, configuration: Configuration) -> bool:
        """Whether it may yet turn out to be one."""
        return self.standing(configuration).state != OUTSIDE and self.worth(configuration) != NO

    def best(self, winners: Sequence[Configuration]) -> Configuration:
        """The first that no later one beats."""
        found = winners[0]
        for one in winners[1:]:
            if self.beats(one, found) == YES:
                found = one
        return found

    def questions(self) -> tuple[Question, ...]:
        """What may change the recommendation; nothing can if there is no question.

        The smallest size of which one may be recommended counts. Larger ones are asked for when it is out, or when
        there are no more chunks to tell.
        """
        found: list[Question] = []
        for group in self.sizes():
            possible = [one for one in group if self.is_possible(one)]
            winners = [one for one in possible if self.is_winner(one)]
            unsure = [one for one in possible if one not in winners]
            found += [question for one in unsure for question in self._doubts(one)]
            if not all(map(self.is_exhausted, unsure)):
                break
            if winners:
                best = self.best(winners)
                rivals = [one for one in winners if one != best and self.beats(one, best) == OPEN]
                found += [self._between(one, best) for one in rivals]
                break
        return tuple(found)

    def is_exhausted(self, configuration: Configuration) -> bool:
        """Whether it was measured over as many chunks as there may be, or as its texts have."""
        most = self.criteria.looks.chunks[-1]
        return all(
            one.chunks >= self.ends.get(corpus, most)
            for corpus, one in zip(self.sweep.corpora, self.found(configuration), strict=True)
        )

    @property
    def settled(self) -> bool:
        """Whether nothing is open, and nothing failed that might be recommended if it were run again."""
        failed = {job.configuration for job in self.ledger.failures}
        return not self.questions() and not failed & set(self.smaller)

    def _doubts(self, one: Configuration) -> Iterator[Question]:
        """Whether it is inside the tolerance, and whether its rotation is worth it."""
        standing = self.standing(one)
        if standing.state == OPEN:
            chunks = max(found.chunks for found in self.found(one))
            yield Question((one,), chunks + (standing.chunks_more or 0))
        if self.worth(one) == OPEN:
            yield self._between(one, replace(one, rotation="off"))

    def _between(self, one: Configuration, other: Configuration) -> Question:
        """Whether one beats the other."""
        least = -self.criteria.equal.ln_kld
        known = [interval for interval in self._ratios(one, other) if interval]
        needed = [found.chunks + chunks_more(found, abs(found.mean - least)) for found in known]
        return Question((one, other), max(needed, default=0))
