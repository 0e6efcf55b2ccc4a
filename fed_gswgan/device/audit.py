"""Audit of the guard that a device's folder builds: an attempt to refute its claimed privacy.

Settings and policy of the folder are copied to a temporary one that has a ledger of its own and
made-up images. Its guard is opened as the device's process does, and asked again and again in the
costliest way that the policy allows, in two worlds of images. So data format, features, basis,
bound, noise, policy and ledger are all under audit, as they are wired. The owner's folder is read
and never written; his images are not read.

Rounds of a trained critic are shortened to one step, which changes no bound and no noise. A copy
answers at once and without a pause between answers, and the owner's counter is not asked: it would
be raised by releases that are none of the owner's.
"""

import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from fed_gswgan.accounting.audit import (
    CHECKS,
    CONFIDENCE,
    DRAWS,
    TRUSTS,
    AuditReport,
    CheckResult,
    Subject,
    checked,
    run_check,
    shipped,
)
from fed_gswgan.accounting.audit_cases import FaultyRelease, clipped_parts
from fed_gswgan.accounting.audit_law import Found, Sample, uncorrelated, whole_law
from fed_gswgan.algorithms.base import Query, Update
from fed_gswgan.config import Config
from fed_gswgan.data.client_dataset import DataSpec
from fed_gswgan.device.folder import (
    POLICY,
    SETTINGS,
    OpenDevice,
    create_device,
    open_device,
    owners,
    read_settings,
    socket_path,
)
from fed_gswgan.device.guard import FAILURES
from fed_gswgan.device.refusal_limit import RefusalLimit
from fed_gswgan.privacy.ledger import HEAD, LEDGER, REPLIES, Ledger
from fed_gswgan.privacy.mechanism import Event, NeighboringRelation, grid_step, noise_deviation
from fed_gswgan.privacy.policy import Trust, read_policy
from fed_gswgan.privacy.refusals import Refusal
from fed_gswgan.seeding import SeedStream
from fed_gswgan.settings import kebab, toml_value
from fed_gswgan.wire.messages import Request, decode_release

REQUESTS, FEWEST_REQUESTS = 64, 8  # in each world, under each trust model
MOST_NUMBERS = 2**22  # of the releases of a world together
MOST_SPENT = 100  # answers, if the budget ends by then
WORLDS = {"40 images": 40, "one image": 1}
NOISE_CHECKS = [title for title in CHECKS if title.startswith("noise: ")]
AT_ONCE = {"answer_seconds": 0.0, "min_separation_seconds": 0.0, "counter": ""}
COSTLY_STEPS = ("critic_steps", "warm_start_steps")


def audit_guard(
    folder: Path,
    *,
    draws: int = DRAWS,
    confidence: float = CONFIDENCE,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> AuditReport:
    """Try to refute that a device's guard is as private as its policy and its answers say.

    Args:
        folder: the device's.
        draws: from the guard's source of noise, beside its releases.
        confidence: with which a sound guard passes everything.
        on_progress: called with the number of checks done and that of all.

    Raises:
        OSError, ValueError: settings or policy cannot be read, or no round can be computed.
    """
    checks: list[CheckResult] = []
    with tempfile.TemporaryDirectory() as temporary, _unlogged_refusals():
        worlds = []
        for number, (name, images) in enumerate(WORLDS.items()):
            made = _copy(folder, Path(temporary) / f"{number}", images)
            worlds.append(World(name, made, open_device(made)))
        policy = worlds[0].device.policy
        attempts = 1 + len(NOISE_CHECKS) + len(policy.trust) * (len(worlds) + 1)
        for result in _checks(worlds, draws, (1 - confidence) / attempts):
            checks.append(result)
            on_progress(len(checks), attempts)
    return AuditReport(
        repeats=REQUESTS,
        draws=draws,
        confidence=confidence,
        delta=policy.delta,
        checks=tuple(checks),
        cases=(),
    )


@contextmanager
def _unlogged_refusals() -> Iterator[None]:
    """Keep what the audit provokes out of the log."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@dataclass
class World:
    """An opened copy of the device with images of its own."""

    name: str
    folder: Path
    device: OpenDevice

    @property
    def config(self) -> Config:
        """The device's training settings."""
        return self.device.settings.config()

    @property
    def spec(self) -> DataSpec:
        """Of the device's classes."""
        return self.device.settings.spec

    def event(self, trust: Trust) -> Event:
        """Return the costliest release that the policy answers at least once."""
        policy, shape = self.device.policy, self.device.guard.client.release(1)
        honest = policy.min_honest if trust == "secure-aggregation" else 1
        event = Event(
            **shape._asdict(),
            clipping_bound=policy.max_clipping_bound,
            noise_stddev=policy.min_noise_stddev,
            trust=trust,
            honest=honest,
        )
        sensitivity = event.sensitivity(NeighboringRelation(policy.neighboring_relation))
        share = max(
            policy.min_noise_stddev / math.sqrt(honest),
            sensitivity / policy.max_mu / math.sqrt(honest),
            sensitivity / policy.max_mu_alone,
        )
        return replace(event, noise_stddev=share * (1 + 1e-9))

    def allowed(self, event: Event) -> int:
        """Return how many equal releases the policy's budget admits."""
        policy = self.device.policy
        charge, relation = policy.charge(event), NeighboringRelation(policy.neighboring_relation)
        limits = (policy.max_mu, charge), (policy.max_mu_alone, replace(charge, honest=1))
        most = min((mu / of.mu(relation)) ** 2 for mu, of in limits) * (1 + 1e-9)
        return math.floor(min(most, policy.max_participations or math.inf, 2.0**40))

    def forget(self) -> None:
        """Begin the copy anew: its budget is whole, and no refusal counts."""
        for name in (LEDGER, HEAD, REPLIES):
            (self.folder / name).unlink()
        Ledger.create(self.folder, owners(self.device.settings))
        self.device = self.device._replace(refusals=RefusalLimit())

    def ask(self, request: Request, masked: bool = True) -> np.ndarray | None:
        """Return the released grid steps; None for a refusal.

        Args:
            request: under secure aggregation without the masks, which come after the noise.
            masked: whether the guard is to take it that masks follow.
        """
        device = self.device
        try:
            if request.event.trust == "secure-aggregation" and masked:
                return device.guard.release_once(request, device.client)
            return decode_release(device.answer(request.encode()), request)
        except Refusal:
            return None

    def request(self, query: Query, event: Event, number: int = 0) -> Request:
        """Return a first round of an experiment of its own."""
        return Request(
            experiment_id=f"audit-{number}",
            server_round=1,
            algorithm=self.device.guard.algorithm,
            event=event,
            tensors=query.tensors,
            scalars=query.scalars,
            modulus_bits=31 if event.trust == "secure-aggregation" else 0,
        )

    def releases(self, query: Query, event: Event) -> Sample:
        """Ask again and again, with a new ledger where the budget is spent.

        Raises:
            FaultyRelease: a request within the policy is refused.
            ValueError: the round could not be computed.
        """
        count = min(REQUESTS, max(FEWEST_REQUESTS, MOST_NUMBERS // event.size))
        released = []
        for number in range(count):
            request = self.request(query, event, number)
            if (answer := self.ask(request)) is None:  # the budget is spent
                self.forget()
                answer = self.ask(request)
            if answer is None:
                raise FaultyRelease("a request within the policy is refused")
            released.append(answer)
        if (self.folder / FAILURES).exists():
            last_line = (self.folder / FAILURES).read_text().strip().rsplit("\n")[-1]
            raise ValueError(f"a round cannot be computed ({last_line}): fed-gswgan device check")
        client = self.config.algorithm.Client(self.config.own, self.spec)
        view = replace(self.device.client, state=None)
        update = client.update(self.request(query, event), view)
        step = grid_step(event)
        return Sample(
            steps_MRN=np.array(released)[:, None],
            centers_RN=_bounded(update, event)[None] / step,
            deviation=noise_deviation(event) / step,
        )


def _copy(folder: Path, to: Path, images: int) -> Path:
    """Make a device of a folder's settings and policy, with made-up images; return its folder."""
    settings, policy = read_settings(folder / SETTINGS), read_policy(folder / POLICY)
    to.mkdir()
    randomness = np.random.Generator(np.random.Philox(key=images))
    pixels = np.zeros((images, *settings.spec.image_shape[1:]), np.uint8)
    for image in pixels:
        top, left = randomness.integers(4, 16, 2)
        image[top : top + 8, left : left + 8] = randomness.integers(100, 256, (8, 8))
    data = to / "made-up.npz"
    np.savez(data, images=pixels, labels=np.arange(images) % settings.spec.num_classes)
    data.chmod(0o600)
    own = settings.config().own
    fewer = {kebab(name): 1 for name in COSTLY_STEPS if getattr(own, name, 0)}
    changed = settings.model_copy(
        update={
            "data": str(data),
            "training": {**settings.training, **fewer},
            "socket": str(socket_path(folder, settings)),  # is never bound
        }
    )
    at_once = policy.model_copy(update=AT_ONCE).to_table()
    limits = to / "limits.toml"
    limits.write_text("".join(f"{key} = {toml_value(value)}\n" for key, value in at_once.items()))
    create_device(to / "device", changed, limits)
    return to / "device"


def _checks(worlds: list[World], draws: int, false_alarm: float) -> Iterator[CheckResult]:
    first = worlds[0]
    query = first.config.algorithm.Server(first.config.own, first.spec, SeedStream(0), 1).request(1)
    events = {trust: first.event(trust) for trust in first.device.policy.trust}
    yield checked("policy: what exceeds it is refused", lambda: _refused(first, query, events))
    noise = first.device.guard.noise(first.device.settings.name, 1)
    subject = Subject(shipped(noise), draws)
    for title in NOISE_CHECKS:
        yield run_check(title, subject, false_alarm)
    for trust, event in events.items():
        samples: list[Sample] = []
        for world in worlds:
            law = partial(_law, world, query, event, false_alarm, samples)
            yield checked(f"law of a release: {trust}, {world.name}", law)
        title = f"noise differs where the guard is opened again: {trust}"
        yield checked(title, partial(_apart, event, samples, false_alarm))


def _law(
    world: World, query: Query, event: Event, false_alarm: float, samples: list[Sample]
) -> Found:
    """Test the releases of a world, which are added to ``samples``."""
    if not world.allowed(event):
        return "the budget admits no release", "", False
    sample = world.releases(query, event)
    samples.append(sample)
    if event.trust == "central":
        return _rounded_towards_zero(sample)
    return whole_law(sample, false_alarm)


def _refused(world: World, query: Query, events: Mapping[Trust, Event]) -> Found:
    """Ask for what the policy forbids, and for one release more than the budget allows."""
    policy = world.device.policy
    too_much: dict[str, Event] = {}
    for trust, event in events.items():
        too_much[f"{trust}, a longer bound"] = replace(
            event, clipping_bound=event.clipping_bound * 1.01
        )
        too_much[f"{trust}, a row more"] = replace(event, rows=event.rows + 1)
        if trust != "central":  # where the owner's belief is charged, whatever is asked
            least = policy.min_noise_stddev / math.sqrt(event.honest)
            too_much[f"{trust}, less noise"] = replace(event, noise_stddev=least * 0.99)
    too_much |= {f"trust {t}": world.event(t) for t in TRUSTS if t not in policy.trust}
    answered = []
    for number, (name, event) in enumerate(too_much.items()):
        world.forget()
        if world.ask(world.request(query, event, number)) is not None:
            answered.append(name)
    for trust, event in events.items():
        world.forget()
        in_the_open = world.request(query, event)
        if trust == "secure-aggregation" and world.ask(in_the_open, masked=False) is not None:
            answered.append("a part of a sum that no masks follow")
        allowed = world.allowed(event)
        if allowed < MOST_SPENT:
            world.forget()
            requests = (world.request(query, event, number) for number in range(allowed + 1))
            if sum(world.ask(request) is not None for request in requests) > allowed:
                answered.append(f"{trust}, more than {allowed} releases")
    world.forget()
    found = f"answered: {'; '.join(answered)}" if answered else f"{len(too_much)} kinds are"
    return found, "every one is refused", bool(answered)


def _bounded(update: Update, event: Event) -> np.ndarray:
    """Return what a correct guard adds noise to."""
    rows, extra = np.asarray(update.rows_RN), np.asarray(update.extra_E)
    bound = event.clipping_bound
    if event.bounded == "message":
        return clipped_parts(np.concatenate([rows.ravel(), extra])[None], bound).ravel()
    parts = [clipped_parts(rows, bound).ravel()]
    return np.concatenate(parts + ([clipped_parts(extra[None], bound)[0]] if event.extra else []))


def _rounded_towards_zero(sample: Sample) -> Found:
    """Compare with what a server that adds the noise may be given: no longer than the bound."""
    away = np.abs(sample.steps_MRN) - np.abs(sample.centers_RN)
    off = np.abs(sample.steps_MRN - sample.centers_RN)
    # A center may be off by float64's rounding.
    wrong = float(away.max()) > 1e-3 or float(off.max()) >= 1 + 1e-3
    found = f"{float(off.max()):.3f} steps off, {max(float(away.max()), 0.0):.3f} outwards"
    return found, "less than one, and none outwards", wrong


def _apart(event: Event, samples: list[Sample], false_alarm: float) -> Found:
    if event.trust == "central" or len(samples) < 2:
        return "no noise to compare", "", False
    return uncorrelated(np.stack([sample.normals for sample in samples]), false_alarm)
