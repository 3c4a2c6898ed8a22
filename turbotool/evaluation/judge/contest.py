"""Which configurations may be recommended, which of them is, and which need more chunks before that is certain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from turbotool.evaluation.cell import Configuration, Measured
from turbotool.evaluation.judge import stats as evalstats
from turbotool.evaluation.judge.finding import Equivalence, chunks_more
from turbotool.evaluation.judge.futility import FUTILE, Horizon, chance_below
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

        The smallest size of which one may be recommended counts. Larger ones are asked for when it is out or futile,
        or when there are no more chunks to tell.
        """
        found: list[Question] = []
        for group in self.sizes():
            winners = [one for one in group if self.is_winner(one)]
            unsure = [one for one in group if one not in winners and self.is_possible(one) and not self.is_futile(one)]
            found += [question for one in unsure for question in self._doubts(one)]
            if not all(map(self.is_exhausted, unsure)):
                break
            if winners:
                best = self.best(winners)
                rivals = [one for one in winners if one != best and self._may_beat(one, best)]
                found += [self._between(one, best) for one in rivals]
                break
        return tuple(found)

    def is_exhausted(self, configuration: Configuration) -> bool:
        """Whether it was measured over as many chunks as there may be, or as its texts have."""
        found = zip(self.found(configuration), self._horizons(), strict=True)
        return all(one.chunks >= horizon.chunks for one, horizon in found)

    def is_futile(self, configuration: Configuration) -> bool:
        """Whether it would hardly be recommended after all chunks, by those that were measured."""
        if self.is_exhausted(configuration):
            return False
        plain = replace(configuration, rotation="off")
        is_worth = self.worth(configuration) != OPEN or self._may_beat(configuration, plain)
        return self._chance_inside(configuration) < FUTILE or not is_worth

    def _chance_inside(self, configuration: Configuration, seen: int = 0) -> float:
        """That it is found inside the tolerance after all chunks; `seen` as `chance_below` has it, here and below."""
        found = zip(self.found(configuration), self._horizons(), strict=True)
        return min(self.criteria.tolerance.chance(one, self.sweep.ctx, horizon, seen) for one, horizon in found)

    def _may_beat(self, one: Configuration, other: Configuration) -> bool:
        """Whether it is open that one beats the other, and not futile to ask."""
        is_open = self.beats(one, other) == OPEN
        return is_open and (self.is_exhausted(one) or self._chance_to_beat(one, other) >= FUTILE)

    def _chance_to_beat(self, one: Configuration, other: Configuration, seen: int = 0) -> float:
        """That its KLD is found lower by enough after all chunks."""
        known = [*zip(self._ratios(one, other), self._horizons(), strict=True)]
        lower, by_enough = (
            [chance_below(edge, ratio, horizon, seen) if ratio else 1.0 for ratio, horizon in known]
            for edge in (0.0, -self.criteria.equal.ln_kld)
        )
        return min(*lower, max(by_enough))

    def _horizons(self) -> tuple[Horizon, ...]:
        """Of each text."""
        looks = self.criteria.looks
        chunks = [self.ends.get(corpus, looks.chunks[-1]) for corpus in self.sweep.corpora]
        return tuple(Horizon(most, looks.confidence) for most in chunks)

    @property
    def settled(self) -> bool:
        """Whether nothing is open, and nothing failed that might be recommended if it were run again."""
        failed = {job.configuration for job in self.ledger.failures}
        return not self.questions() and not failed & set(self.smaller)

    def _doubts(self, one: Configuration) -> Iterator[Question]:
        """Whether it is inside the tolerance, and whether its rotation is worth it."""
        standing = self.standing(one)
        if standing.state == OPEN:
            chunks = max(found.chunks for found in self.found(one)) + (standing.chunks_more or 0)
            yield Question((one,), self._soonest(chunks, lambda seen: self._chance_inside(one, seen)))
        if self.worth(one) == OPEN:
            yield self._between(one, replace(one, rotation="off"))

    def _between(self, one: Configuration, other: Configuration) -> Question:
        """Whether one beats the other."""
        least = -self.criteria.equal.ln_kld
        known = [interval for interval in self._ratios(one, other) if interval]
        needed = [found.chunks + chunks_more(found, abs(found.mean - least)) for found in known]
        chunks = self._soonest(max(needed, default=0), lambda seen: self._chance_to_beat(one, other, seen))
        return Question((one, other), chunks)

    def _soonest(self, chunks: int, chance: Callable[[int], float]) -> int:
        """The chunks that answer a question, or fewer at a look which may show that it is futile."""
        before = (look for look in self.criteria.looks.chunks if look < chunks)
        return next((look for look in before if chance(look) < FUTILE), chunks)
