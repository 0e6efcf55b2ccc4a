"""The file of an owner's peers: what is none is refused by name, nothing in it is replaced."""

import pytest

from fed_gswgan.device.roster import (
    ROSTER,
    RosterFile,
    add_to_roster,
    read_roster,
    require_roster,
)
from fed_gswgan.privacy.policy import Policy

KEYS = {name: bytes([number]) * 32 for number, name in enumerate(["ann", "ann 2", "bob", "cy"])}


def text(made_by="J. Doe", **people):
    lines = [f"made-by = {made_by!r}", "[people]"]
    return "\n".join(
        lines + [f"{who} = {[KEYS[k].hex() for k in of]}" for who, of in people.items()]
    )


def written(path, *args, **people):
    path.write_text(text(*args, **people))
    return path


def test_devices_of_one_person_are_that_person_s(tmp_path):
    found = read_roster(written(tmp_path / ROSTER, ann=["ann", "ann 2"], bob=["bob"]))
    assert found.made_by == "J. Doe"
    assert found.people == {KEYS["ann"]: "ann", KEYS["ann 2"]: "ann", KEYS["bob"]: "bob"}
    (tmp_path / "again").write_text(found.to_toml())
    assert read_roster(tmp_path / "again") == found
    roster = found.roster(Policy(min_honest=4, max_colluding=2))
    assert (roster.people, roster.min_honest, roster.max_colluding) == (found.people, 4, 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "made-by must be given"),
        ('made-by = " "\n[people]\nann = []', "made-by must be given"),
        ('made-by = "me"', "people must be given"),
        ('made-by = "me"\n[people]', "people must be given"),
        ('made-by = "me"\npeple = 1', "peple: no such setting; did you mean people"),
        ('made-by = "me"\n[people]\nann = ["6f"]', "people.ann: '6f' must be a public key"),
        ('made-by = "me"\n[people]\nann = 7', "people.ann: 7 must be a public key"),
        (text(ann=["bob"], bob=["bob"]), f"{KEYS['bob'].hex()} is ann's, cannot be bob's"),
    ],
)
def test_what_is_no_roster_is_refused_by_name(tmp_path, content, said):
    (tmp_path / ROSTER).write_text(content)
    with pytest.raises(ValueError, match=f"{ROSTER}: {said}"):
        read_roster(tmp_path / ROSTER)


def test_keys_are_added_and_none_is_replaced(tmp_path):
    add_to_roster(tmp_path, written(tmp_path / "first", ann=["ann"]))
    assert (tmp_path / ROSTER).stat().st_mode & 0o777 == 0o600
    more = written(tmp_path / "second", "the institute", ann=["ann", "ann 2"], cy=["cy"])
    for _ in range(2):
        found = add_to_roster(tmp_path, more)
    assert found == read_roster(tmp_path / ROSTER)
    assert found.made_by == "J. Doe; the institute"
    assert set(found.people) == {KEYS["ann"], KEYS["ann 2"], KEYS["cy"]}
    before = (tmp_path / ROSTER).read_bytes()
    with pytest.raises(ValueError, match=r"third: .* is ann's, cannot be bob's as well"):
        add_to_roster(tmp_path, written(tmp_path / "third", bob=["bob", "ann"]))
    assert (tmp_path / ROSTER).read_bytes() == before


def test_a_roster_of_which_no_cohort_would_be_answered_is_found():
    people = {KEYS[name]: name.split()[0] for name in KEYS}  # three people
    roster = RosterFile("me", people)
    require_roster(roster, Policy(min_honest=2, max_colluding=1), KEYS["ann"])
    with pytest.raises(ValueError, match=r"3 people must be >= 4 \(min-honest=2, max-colluding=2"):
        require_roster(roster, Policy(min_honest=2, max_colluding=2), KEYS["ann"])
    with pytest.raises(ValueError, match="must hold this device's own key, ffff"):
        require_roster(roster, Policy(), b"\xff" * 32)
