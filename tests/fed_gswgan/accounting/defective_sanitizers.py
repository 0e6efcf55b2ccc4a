"""A sound sanitizer, and others that have one defect each; what is wrong is the class's name."""

import os

import numpy as np

from fed_gswgan.accounting.audit_cases import released_step
from fed_gswgan.privacy.mechanism import Event
from fed_gswgan.privacy.mechanism import clip as clip_parts
from fed_gswgan.privacy.noise import NoiseSource, SeededNoise


def clip(gradients, bounded, bound):
    """Clip as a sound mechanism does."""
    event = Event(rows=1, numbers=1, clipping_bound=bound, noise_stddev=1.0)
    parts = gradients.reshape(len(gradients) if bounded == "sample" else 1, -1)
    return clip_parts(parts, event).reshape(gradients.shape)


class SeededByProcess(NoiseSource):
    """Seeded noise that differs after a fork, as noise on a device does."""

    def __init__(self, seed=7):
        self.process = os.getpid()
        self.at_first = np.random.Generator(np.random.Philox(key=seed))

    def randomness(self):
        if os.getpid() == self.process:
            return self.at_first
        return np.random.Generator(np.random.Philox(key=os.getpid()))

    def draw(self, values, stddev, step):
        return SeededNoise(self.randomness()).draw(values, stddev, step)


class Sound:
    """Clips, then adds noise from a seed, then rounds to the public grid."""

    def __init__(self):
        self.source = SeededByProcess()

    def __call__(self, messages, event):
        return [self.sanitize(message, event) for message in messages]

    def sanitize(self, gradients, event):
        clipped = self.clip(gradients, event)
        return self.rounded(clipped + self.noise(clipped, event), gradients, event)

    def rounded(self, values, gradients, event):
        step = released_step(event)
        return (np.rint(values / step) * step).astype(np.float32)

    def clip(self, gradients, event):
        return clip(gradients, event.bounded, event.clipping_bound)

    def noise(self, clipped, event):
        return self.stddev(event) * self.randomness().standard_normal(clipped.shape)

    def randomness(self):
        return self.source.randomness()

    def stddev(self, event):
        return event.noise_stddev * event.clipping_bound


class HalfTheNoise(Sound):
    def stddev(self, event):
        return super().stddev(event) / 2


class NoiseWithoutTheBound(Sound):
    def stddev(self, event):
        return event.noise_stddev


class NoNoiseOnZeros(Sound):
    def noise(self, clipped, event):
        return super().noise(clipped, event) * clipped.any()


class NoClip(Sound):
    def clip(self, gradients, event):
        return np.nan_to_num(gradients.astype(np.float64), posinf=0, neginf=0)


class ClipAfterNoise(Sound):
    def sanitize(self, gradients, event):
        finite = np.nan_to_num(gradients.astype(np.float64), posinf=0, neginf=0)
        clipped = self.clip(finite + self.noise(finite, event), event)
        return self.rounded(clipped, gradients, event)


class ClipOfEachPixel(Sound):
    def clip(self, gradients, event):
        return np.clip(np.nan_to_num(gradients), -event.clipping_bound, event.clipping_bound)


class OneCoefficientFromTheMeanNorm(Sound):
    def clip(self, gradients, event):
        rows = np.nan_to_num(gradients.astype(np.float64), posinf=0, neginf=0)
        mean = np.linalg.norm(rows.reshape(len(rows), -1), axis=1).mean()
        return rows * min(1, event.clipping_bound / max(mean, 1e-300))


class CoefficientFromTheSumOfRows(Sound):
    def clip(self, gradients, event):
        rows = np.nan_to_num(gradients.astype(np.float64), posinf=0, neginf=0)
        total = np.linalg.norm(rows.sum(axis=0))
        return rows * min(1, event.clipping_bound / max(total, 1e-300))


class RowsClippedInsteadOfTheMessage(Sound):
    def clip(self, gradients, event):
        return clip(gradients, "sample", event.clipping_bound)


class NoClipWhereTheSquareOverflows(Sound):
    def clip(self, gradients, event):
        finite = np.nan_to_num(gradients, posinf=0, neginf=0)
        parts = finite.reshape(len(finite) if event.bounded == "sample" else 1, -1)
        with np.errstate(over="ignore"):
            norms = np.sqrt(np.square(parts).sum(axis=1, keepdims=True))
        norms = np.where(np.isfinite(norms), norms, 0)
        return (parts / np.maximum(norms / event.clipping_bound, 1)).reshape(gradients.shape)


class OneNoiseForAllRows(Sound):
    def noise(self, clipped, event):
        return super().noise(clipped[:1], event)


class OneNoiseValueARow(Sound):
    def noise(self, clipped, event):
        return super().noise(clipped[:, :, :1, :1], event)


class NoiseReusedInTheNextMessage(Sound):
    def __call__(self, messages, event):
        kept = self.noise(messages[0], event)
        return [self.rounded(self.clip(m, event) + kept, m, event) for m in messages]


class NoiseFromAConstantSeed(Sound):
    def randomness(self):
        return np.random.Generator(np.random.Philox(key=7))


class NoiseSharedByForks(Sound):
    def randomness(self):
        return self.source.at_first


class SinglePrecisionNoise(Sound):
    def sanitize(self, gradients, event):
        normals = self.randomness().standard_normal(gradients.shape, np.float32)
        clipped = self.clip(gradients, event).astype(np.float32)
        return clipped + np.float32(self.stddev(event)) * normals


class NoFiniteGuard(Sound):
    def clip(self, gradients, event):
        parts = gradients.astype(np.float64)
        parts = parts.reshape(len(gradients) if event.bounded == "sample" else 1, -1)
        with np.errstate(invalid="ignore"):
            norms = np.linalg.norm(parts, axis=1, keepdims=True)
            parts = parts * np.minimum(1, event.clipping_bound / np.maximum(norms, 1e-300))
        return parts.reshape(gradients.shape)


class FiniteGuardAfterTheNoise(NoFiniteGuard):
    def sanitize(self, gradients, event):
        return np.nan_to_num(super().sanitize(gradients, event))


class NormOfZeroDivides(Sound):
    def clip(self, gradients, event):
        rows = np.nan_to_num(gradients.astype(np.float64), posinf=0, neginf=0)
        parts = rows.reshape(len(rows) if event.bounded == "sample" else 1, -1)
        with np.errstate(invalid="ignore"):
            parts = event.clipping_bound * parts / np.linalg.norm(parts, axis=1, keepdims=True)
        return parts.reshape(gradients.shape)


class RaisesOnNaN(Sound):
    def clip(self, gradients, event):
        if np.isnan(gradients).any():
            raise ValueError("a gradient is not a number")
        return super().clip(gradients, event)


class LeavesOutRowsThatAreNotFinite(Sound):
    def clip(self, gradients, event):
        finite = np.isfinite(gradients).all(axis=(1, 2, 3))
        return super().clip(gradients[finite], event) if finite.any() else gradients[finite]


class KeepsDoublePrecision(Sound):
    def sanitize(self, gradients, event):
        clipped = self.clip(gradients, event)
        return clipped + self.noise(clipped, event)


class NoClipBeyondTheThirtySecondRow(Sound):
    def clip(self, gradients, event):
        clipped = super().clip(gradients, event)
        clipped[32:] = np.nan_to_num(gradients[32:].astype(np.float64), posinf=0, neginf=0)
        return clipped


class NoiseThatRepeatsAfterThreeMillionDraws(Sound):
    period = 3_000_017

    def __init__(self):
        super().__init__()
        self.drawn, self.at = self.randomness().standard_normal(self.period, np.float32), 0

    def noise(self, clipped, event):
        places = (self.at + np.arange(clipped.size)) % self.period
        self.at += clipped.size
        return self.stddev(event) * self.drawn[places].astype(np.float64).reshape(clipped.shape)


class BoundedNoiseOfTheRightVariance(Sound):
    def noise(self, clipped, event):
        """Return three uniforms of variance 1/3 each."""
        drawn = self.randomness().uniform(-1, 1, (3, *clipped.shape)).sum(axis=0)
        return self.stddev(event) * drawn


class GaussianCutAtThreeAndAHalfDeviations(Sound):
    def noise(self, clipped, event):
        drawn = self.randomness().standard_normal(clipped.shape)
        while (beyond := np.abs(drawn) > 3.5).any():
            drawn[beyond] = self.randomness().standard_normal(np.count_nonzero(beyond))
        return self.stddev(event) * drawn


class DataInTheLastBitOfTheMantissa(Sound):
    def sanitize(self, gradients, event):
        words = super().sanitize(gradients, event).view(np.uint32)
        return (words & ~np.uint32(1) | (gradients > 0)).astype(np.uint32).view(np.float32)


class DataInTheLastBitOfTheStep(Sound):
    def rounded(self, values, gradients, event):
        step = released_step(event)
        steps = np.rint(values / step).astype(np.int64)
        return ((steps & ~1 | (gradients > 0)) * step).astype(np.float32)


class RoundedTowardsTheData(Sound):
    def rounded(self, values, gradients, event):
        step = released_step(event)
        up = np.nan_to_num(gradients) > 0
        steps = np.where(up, np.ceil(values / step), np.floor(values / step))
        return (steps * step).astype(np.float32)


class GridShiftedByTheData(Sound):
    def rounded(self, values, gradients, event):
        step = released_step(event)
        offset = self.clip(gradients, event) % step
        return (np.rint((values - offset) / step) * step + offset).astype(np.float32)


class LessNoiseOnEveryHundredthRow(Sound):
    def noise(self, clipped, event):
        noise = super().noise(clipped, event)
        noise[99::100] *= 0.8
        return noise


class NoiseCorrelatedWithAnEarlierDraw(Sound):
    def noise(self, clipped, event):
        """Return draws that share a fifth of their variance with the one 37 places before."""
        drawn = super().noise(clipped, event).ravel()
        return (drawn + 0.5 * np.roll(drawn, 37)).reshape(clipped.shape) / 1.25**0.5


class NoiseFromATableOfDraws(Sound):
    def __init__(self):
        super().__init__()
        self.table = self.randomness().standard_normal(2**14)

    def noise(self, clipped, event):
        return self.stddev(event) * self.randomness().choice(self.table, clipped.shape)


class NoiseOfASizeThatFollowsTheData(Sound):
    def noise(self, clipped, event):
        """Return noise that is larger where the data is, and as claimed on average."""
        sizes = np.abs(clipped) / max(np.abs(clipped).max(), 1e-300)
        factors = 1 + 0.1 * (sizes - sizes.mean())
        return super().noise(clipped, event) * factors


class ShareOfNoiseDividedTwice(Sound):
    def stddev(self, event):
        return super().stddev(event) / event.honest**0.5


class NoNoiseUnderCentralTrust(Sound):
    def stddev(self, event):
        return super().stddev(event) * (event.trust != "central")


class NoNoiseOnTheLastNumber(Sound):
    def noise(self, clipped, event):
        noise = super().noise(clipped, event)
        noise.reshape(-1)[-1] = 0
        return noise


def accounted_as_one_sample(event, relation):
    """Return the mu of a reply of one row, whatever the number of rows."""
    return relation.sensitivity_multiple / event.noise_stddev
