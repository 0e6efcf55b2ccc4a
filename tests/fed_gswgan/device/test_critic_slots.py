import os

import numpy as np
import pytest
from safetensors import safe_open

from fed_gswgan.device import critic_slots
from fed_gswgan.device.critic_slots import CriticSlots, CriticState
from fed_gswgan.privacy.ledger import ReleaseKey

KEY = "ab" * 32
EXPERIMENT = "experiment"


def state(server_round, mark=0.0, reply_size=6, size=5):
    return CriticState(
        server_round=server_round,
        optimizer_steps=10 * server_round,
        parameters=np.full((3, size), mark, dtype=np.float32),
        key=KEY,
        reply=np.full(reply_size, -mark, dtype=np.float32),
    )


def released(slots, server_round, shape=(6,), key=KEY):
    return slots.released(ReleaseKey(EXPERIMENT, server_round, key), shape)


def rounds(slots):
    found = map(critic_slots._read, slots._paths)
    return sorted(stored.server_round for stored in found if stored)


def store(slots, *rounds_and_checkpoints):
    for server_round, checkpoint in rounds_and_checkpoints:
        slots.store(state(server_round), checkpoint)


@pytest.fixture
def slots(tmp_path):
    return CriticSlots(tmp_path, EXPERIMENT)


def test_empty_folder_holds_nothing(slots):
    assert slots.before(100) is None
    assert released(slots, 1) is None


def test_state_comes_back_to_the_bit(slots):
    parameters = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)
    reply = np.array([np.float32(1e-45), -0.0, 3.4e38], dtype=np.float32)
    slots.store(CriticState(4, 123, parameters, KEY, reply), 3)
    found = slots.before(5)
    assert (found.server_round, found.optimizer_steps, found.key) == (4, 123, KEY)
    assert found.parameters.tobytes() == parameters.tobytes()
    assert found.reply.tobytes() == reply.tobytes()
    assert released(slots, 4, (3,)).tobytes() == reply.tobytes()


def test_state_is_there_for_another_process(slots, tmp_path):
    store(slots, (1, 0))
    again = CriticSlots(tmp_path, EXPERIMENT)
    assert again.before(2).server_round == 1
    assert released(again, 1) is not None


def test_files_are_read_once_until_the_next_store(slots, monkeypatch):
    store(slots, (1, 0), (2, 1))
    read, names = critic_slots._read, []

    def noted(path):
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(critic_slots, "_read", noted)
    assert released(slots, 3) is None
    assert slots.before(3).server_round == 2
    store(slots, (3, 2))
    assert names == ["0.safetensors", "1.safetensors"]
    assert slots.before(4).server_round == 3


def test_before_is_strictly_before(slots):
    store(slots, (2, 1))
    assert slots.before(2) is None
    assert slots.before(3).server_round == 2


@pytest.mark.parametrize(
    ("schedule", "kept"),
    [
        # (round, checkpoint that the server had then)
        ([(1, 0), (2, 1), (3, 2), (4, 3)], [3, 4]),
        ([(1, 0), (2, 1), (3, 1), (4, 1)], [1, 4]),
        ([(1, 0), (2, 0), (3, 2), (4, 2), (5, 2)], [2, 5]),
        ([(1, 0), (2, 0), (3, 0)], [2, 3]),
        ([(1, 0), (5, 4), (6, 4), (9, 8)], [6, 9]),
        ([(1, 0), (2, 1), (3, 1), (2, 1)], [1, 2]),  # fell back to 1
        ([(1, 0), (2, 1), (3, 2), (1, 0)], [1]),  # fell back to the start
        ([(5, 0), (6, 0), (2, 0), (3, 0)], [2, 3]),
    ],
)
def test_which_rounds_survive(slots, schedule, kept):
    store(slots, *schedule)
    assert rounds(slots) == kept


@pytest.mark.parametrize("seed", range(40))
def test_after_any_fallback_the_newest_state_of_the_checkpoint_is_found(tmp_path, seed):
    """Play random schedules against a server that remembers everything.

    A client learns of a fallback by being asked for a round it has passed, so it is asked for one
    before the new timeline leaves the old one behind.
    """
    random = np.random.default_rng(seed)
    slots, timeline, left_behind, checkpoint, server_round, mark = (
        CriticSlots(tmp_path, EXPERIMENT), {}, set(), 0, 1, 0
    )  # fmt: skip

    def found_before(wanted_round):
        found = slots.before(wanted_round)
        return found and (found.server_round, found.parameters[0, 0])

    for _ in range(60):
        if random.random() < 0.15:  # the server fell over
            left_behind |= {r for r in timeline if r > checkpoint}
            timeline = {r: m for r, m in timeline.items() if r <= checkpoint}
            server_round = checkpoint + 1
            newest = max(timeline.items(), default=None)
            assert found_before(server_round) == newest
        if random.random() < 0.6 or server_round in left_behind:
            assert found_before(server_round) == max(timeline.items(), default=None)
            mark += 1
            slots.store(state(server_round, mark), checkpoint)
            timeline[server_round] = mark
            left_behind = {r for r in left_behind if r < server_round}
            assert released(slots, server_round).tolist() == [-mark] * 6
        if random.random() < 0.4:
            checkpoint = server_round
        server_round += 1


@pytest.fixture
def stored(slots):
    """Slots that hold rounds 1 and 2, and the file of round 2."""
    store(slots, (1, 0), (2, 1))
    (path,) = [p for p in slots._paths if critic_slots._read(p).server_round == 2]
    return slots, path


def test_a_flipped_bit_anywhere_makes_the_slot_read_as_empty(stored, tmp_path):
    _, path = stored
    intact = path.read_bytes()
    for position in range(len(intact)):
        torn = bytearray(intact)
        torn[position] ^= 1
        path.write_bytes(torn)
        slots = CriticSlots(tmp_path, EXPERIMENT)
        assert released(slots, 2) is None, position
        assert slots.before(10).server_round == 1, position


@pytest.mark.parametrize("size", [0, 1, 99, 100, 128, 130])
def test_a_slot_cut_short_reads_as_empty(stored, size):
    slots, path = stored
    path.write_bytes(path.read_bytes()[:size])
    assert released(slots, 2) is None
    assert slots.before(10).server_round == 1


@pytest.mark.parametrize("size", [128, 212, 1000])
@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_a_file_of_zeros_or_ones_reads_as_empty(stored, size, byte):
    slots, path = stored
    path.write_bytes(byte * size)
    assert slots.before(10).server_round == 1


@pytest.mark.parametrize("reply_size", [6, 600])
@pytest.mark.parametrize("step", ["posix_fallocate", "lseek", "ftruncate"])
def test_a_write_killed_between_two_steps_reads_as_empty(stored, monkeypatch, reply_size, step):
    slots, _ = stored

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(critic_slots.os, step, killed)
        with pytest.raises(KeyboardInterrupt):
            slots.store(state(3, reply_size=reply_size), 2)
    assert released(slots, 3) is None
    assert slots.before(10).server_round == 2
    slots.store(state(3, reply_size=reply_size), 2)
    assert rounds(slots) == [2, 3]


def test_a_slot_is_a_file_of_safetensors(stored):
    _, path = stored
    with safe_open(path, "numpy") as slot:
        assert slot.metadata().keys() == {"round", "optimizer-steps", "request-hash", "checksum"}
        assert slot.get_tensor("parameters").shape == (3, 5)
        assert slot.get_tensor("reply").shape == (6,)


def test_a_torn_slot_is_written_first(stored):
    slots, path = stored
    path.write_bytes(path.read_bytes()[:-1])
    store(slots, (3, 0))
    assert rounds(slots) == [1, 3]


@pytest.mark.parametrize("sizes", [(6, 60, 600, 2), (0, 1, 0, 5)])
def test_replies_may_grow_and_shrink(slots, sizes):
    for server_round, size in enumerate(sizes, start=1):
        slots.store(state(server_round, mark=server_round, reply_size=size), server_round - 1)
        assert released(slots, server_round, (size,)).tolist() == [-server_round] * size
        previous = slots.before(server_round)
        assert previous is None or previous.parameters[0, 0] == server_round - 1


def test_two_files_are_all_there_is(slots, tmp_path):
    for server_round in range(1, 8):
        slots.store(state(server_round), server_round - 1)
    (folder,) = tmp_path.iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["0.safetensors", "1.safetensors"]
    numbers = 4 * (3 * 5 + 6)
    assert all(numbers < p.stat().st_size < numbers + 500 for p in folder.iterdir())


def test_released_is_what_this_very_request_was_answered(slots):
    store(slots, (1, 0), (2, 1))
    assert released(slots, 2, (1, 2, 3)).shape == (1, 2, 3)
    assert released(slots, 3) is None
    assert released(slots, 2, key="cd" * 32) is None


def test_what_was_released_is_a_copy(slots):
    store(slots, (1, 0))
    first = released(slots, 1)
    first += 7
    assert released(slots, 1).tolist() == [0.0] * 6


def test_experiments_do_not_see_each_other(slots, tmp_path):
    other = CriticSlots(tmp_path, "another")
    slots.store(state(1, mark=1), 0)
    assert other.before(100) is None
    assert released(other, 1) is None
    for server_round in range(1, 5):
        other.store(state(server_round, mark=9), server_round - 1)
    assert slots.before(2).parameters[0, 0] == 1
    assert released(slots, 1).tolist() == [-1.0] * 6
    assert len(list(tmp_path.iterdir())) == 2


def test_of_many_experiments_the_critics_of_those_answered_last_are_kept(tmp_path):
    first, *others = [CriticSlots(tmp_path, f"experiment {number}") for number in range(12)]
    for number, slots in enumerate([first, *others[:5], first, *others[5:]]):
        slots.store(state(number + 1), number)
        for path in slots._paths:  # a clock that is fine enough on every machine
            if path.exists():
                os.utime(path, ns=(number, number))
        os.utime(slots._folder, ns=(0, 0))

    assert len(list(tmp_path.glob("critic-*"))) == critic_slots.MOST_EXPERIMENTS == 8
    kept = [slots for slots in [first, *others] if slots._folder.exists()]
    assert kept == [first, *others[4:]]
    assert CriticSlots(tmp_path, "experiment 0").before(100).server_round == 7
    assert CriticSlots(tmp_path, "experiment 1").before(100) is None


def test_a_clock_that_went_back_costs_no_new_experiment_its_critic(tmp_path):
    for number in range(critic_slots.MOST_EXPERIMENTS):
        slots = CriticSlots(tmp_path, f"of the future {number}")
        store(slots, (1, 0))
        for path in (*slots._folder.iterdir(), slots._folder):
            os.utime(path, (4e9, 4e9))

    store(CriticSlots(tmp_path, "new"), (1, 0))

    assert CriticSlots(tmp_path, "new").before(2).server_round == 1
    assert len(list(tmp_path.glob("critic-*"))) == critic_slots.MOST_EXPERIMENTS


@pytest.mark.parametrize(
    "experiment_id", ["../../x", "/x", "..", "", "a/b", "a\0b", "x" * 5000, "\u00fc\n"]
)
def test_whatever_an_experiment_is_called_its_critic_stays_inside_the_folder(
    tmp_path, experiment_id
):
    folder = tmp_path / "one" / "two" / "client"
    folder.mkdir(parents=True)
    slots = CriticSlots(folder, experiment_id)
    store(slots, (1, 0))
    assert rounds(slots) == [1]
    assert [p for p in tmp_path.rglob("*.safetensors") if folder not in p.parents] == []
    (inside,) = folder.iterdir()
    assert [p.name for p in inside.iterdir()] == ["0.safetensors"]
    assert {p.name for p in tmp_path.rglob("*")} == {
        "one",
        "two",
        "client",
        inside.name,
        "0.safetensors",
    }


def test_only_the_owner_may_read_a_critic(slots, tmp_path):
    store(slots, (1, 0), (2, 1))
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [p.stat().st_mode & 0o777 for p in folder.iterdir()] == [0o600, 0o600]


def test_nothing_is_made_before_something_is_stored(slots, tmp_path):
    slots.before(1)
    released(slots, 1)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_an_error_and_leaves_the_critic_of_before(slots, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    store(slots, (1, 0))
    with monkeypatch.context() as patch:
        patch.setattr(critic_slots.os, "posix_fallocate", full)
        with pytest.raises(OSError, match="No space left"):
            store(slots, (2, 1))
    assert rounds(slots) == [1]
    store(slots, (2, 1))
    assert rounds(slots) == [1, 2]
