import numpy as np
import pytest

from fed_gswgan.data.check import Check, check_source
from fed_gswgan.data.client_dataset import LabelledImages
from fed_gswgan.data.held_out import SplitSource
from fed_gswgan.data.registry import AlteredSource, DataSettings, open_source

NAMES = ("apple", "pear")


def drawn(seed, count=4, label=None):
    """Return images with ink in their middle, of two classes in turn or of one."""
    images = np.zeros((count, 1, 28, 28), np.float32)
    images[:, :, 8:20, 8:20] = np.random.default_rng(seed).random((count, 1, 12, 12))
    labels = np.arange(count) % 2 if label is None else np.full(count, label)
    return LabelledImages(images, labels.astype(np.int64), f"images/{seed}")


def changed(found, **fields):
    kept = {"images": found.images, "labels": found.labels, "origin": found.origin}
    return LabelledImages(**(kept | fields))


def joined(*parts):
    return LabelledImages(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        "images/joined",
    )


def source(**writers):
    people = {name: drawn(seed) for seed, name in enumerate("abcdefgh")} | writers
    return SplitSource(
        name="fruit",
        unit="a hand",
        image_shape=(1, 28, 28),
        class_names=NAMES,
        image_counts={name: len(images.labels) for name, images in people.items()},
        min_images_per_writer=0,
        read=people.__getitem__,
    )


INVERTED = changed(drawn(50), images=1 - drawn(50).images)
ONE_INVERTED = changed(
    drawn(50), images=np.concatenate([drawn(50).images[:3], 1 - drawn(51).images[:1]])
)
BLANK = joined(
    drawn(50, label=0),
    changed(drawn(51, 2, label=1), images=np.full((2, 1, 28, 28), 0.05, np.float32)),
)
WRONG = {
    "border of 4 of 4 images is ink, first of image 0; invert": INVERTED,
    "border of 1 of 4 images is ink, first of image 3; invert": ONE_INVERTED,
    "all 2 images of class 'pear' are blank": BLANK,
    "label 2 must be 0 .. 1": drawn(50, label=2),
    "4 of 8 images occur twice": joined(drawn(50), drawn(50)),
    "3 of 4 images are also those of images/": joined(drawn(1, 3), drawn(50, 1)),
}  # fmt: skip


@pytest.mark.parametrize("writer", ["a", "z"], ids=["a client", "a new writer"])
@pytest.mark.parametrize("said", WRONG)
def test_a_writer_whose_images_are_surely_wrong_is_refused(said, writer):
    wrong = WRONG[said]
    checked = source(**{writer: wrong})
    with pytest.raises(ValueError, match=f"images/(50|joined|1): .*{said}"):
        check_source(checked, checked.writer_ids)


def test_a_writer_copied_among_the_held_out_ones_is_found_as_well():
    held_out = source().held_out_writers[0]
    client = source().writer_ids[0]
    copied = source(**{held_out: source().read(client)})
    with pytest.raises(ValueError, match="4 of 4 images are also those"):
        check_source(copied, copied.writer_ids)


def test_a_blank_page_and_a_repeated_one_among_many_are_counted_and_kept():
    images = drawn(50, 20)
    images.images[2] = 0
    images.images[5] = images.images[7]
    kept = source(a=images)
    found = check_source(kept, kept.writer_ids)
    assert found.blank == 1
    assert found.counts.sum() == 7 * 4 + 20
    assert found.counts[list(found.digests).index("a")].tolist() == [10, 10]


def test_a_writer_of_the_roster_may_hold_nothing():
    """His device answers with noise, so a run of all writers has such."""
    people = source(nobody=drawn(60, count=0))
    found = check_source(people, ["nobody", *people.writer_ids])
    assert found.counts[list(found.digests).index("nobody")].tolist() == [0, 0]


def test_images_that_are_no_characters_may_be_dark_blank_and_alike():
    garments = Check(NAMES, ink_on_paper=False)
    for _ in range(2):
        garments.add(joined(INVERTED, INVERTED, BLANK), "garments")
    with pytest.raises(ValueError, match="label 2"):
        garments.add(drawn(0, label=2), "garments")


def test_a_planted_fault_is_not_taken_for_a_wrong_file():
    swapped = AlteredSource(source=source(), swapped_share=1.0, writer_ids=source().writer_ids)
    assert len(check_source(swapped, swapped.writer_ids).digests) == 8


def test_the_fingerprint_tells_any_change_of_images_labels_and_classes():
    found = check_source(source(), source().writer_ids)
    assert found.fingerprint == check_source(source(), source().writer_ids).fingerprint
    other = [
        source(a=drawn(50)),
        source(a=changed(drawn(0), labels=1 - drawn(0).labels)),
        source(z=drawn(50)),
    ]
    prints = {check_source(one, one.writer_ids).fingerprint for one in other}
    assert len(prints | {found.fingerprint}) == 4


def test_lines_name_the_few_who_are_held_out():
    found = check_source(source(), source().writer_ids)
    names = ", ".join(map(repr, source().held_out_writers))
    assert found.lines() == ["data: 8 writers, 2 classes", f"held out for evaluation: {names}"]


def test_lines_count_the_many_who_are_held_out():
    crowd = source(**{f"writer {number}": drawn(100 + number) for number in range(80)})
    line = f"held out for evaluation: {len(crowd.held_out_writers)} of the writers"
    assert check_source(crowd, crowd.writer_ids).lines()[1] == line


def test_drawn_writers_are_not_drawn_twice_and_devices_keep_their_images():
    for dataset, given in (("drawn", {"drawn-writers": 20}), ("devices", {"max-clients": 3})):
        opened = open_source(DataSettings.from_table({"dataset": dataset, **given}))
        found = check_source(opened, opened.writer_ids)
        assert found.lines() == []
        assert found.fingerprint == ""
