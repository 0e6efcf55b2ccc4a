import h5py
import numpy as np
import pytest
from PIL import Image

from fed_gswgan.data.check import check_source
from fed_gswgan.data.image_folder import open_image_folder, read_own_images

WRITERS = ["ada", "bob", "cleo", "dan"]


def add(root, writer, name, file, paper=255, ink=0):
    folder = root / writer / name
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", (28, 28), paper)
    image.putpixel((14, 14), ink)
    image.putpixel((4 + ord(writer[0]) % 20, 5 + len(name)), ink)  # nobody draws as another
    image.save(folder / file)


@pytest.fixture
def root(tmp_path):
    for writer in WRITERS:
        add(tmp_path, writer, "tick", "1.png")
        add(tmp_path, writer, "cross", "2.PNG", ink=51)
    add(tmp_path, "ada", "star", "1.png")
    return tmp_path


def test_classes_are_the_sorted_folder_names_of_all_writers(root):
    source = open_image_folder(str(root), "all", 1)
    assert source.class_names == ("cross", "star", "tick")
    assert sorted(source.writer_ids + source.held_out_writers) == WRITERS
    assert len(source.held_out_writers) == 1


def test_a_shard_holds_a_writers_images_by_class(root):
    source = open_image_folder(str(root), "all", 1)
    shard = source.shard(next(writer for writer in source.writer_ids if writer != "ada"))
    assert shard.labels.tolist() == [0, 2]
    assert shard.images[:, 0, 14, 14].tolist() == pytest.approx([0.8, 1])


def test_debris_and_files_beside_the_writers_are_skipped_and_counted_in_a_line(root):
    (root / "README.txt").write_text("about")
    for folder in (".git", "__MACOSX/ada/tick", "lost+found", "ada/@eaDir", "ada/tick/@eaDir"):
        (root / folder).mkdir(parents=True)
    for file in ("ada/.DS_Store", "ada/tick/Thumbs.db", "bob/tick/._1.png"):
        (root / file).write_text("")
    source = open_image_folder(str(root), "all", 1)
    assert len(source.writer_ids) == 3
    (line,) = source.notes
    assert line.startswith("skipped, since no image belongs there, 9: ")
    assert check_source(source, source.writer_ids).lines()[-1] == line


def test_classes_stand_in_natural_order_with_their_letters_composed(root):
    for writer in WRITERS:
        for name in ("10", "2", "Zebra", "A\u0308pfel", "apple"):
            add(root, writer, name, "1.png")
    source = open_image_folder(str(root), "all", 1)
    names = ("2", "10", "apple", "cross", "star", "tick", "Zebra", "\u00c4pfel")
    assert source.class_names == names
    found = source.shard(source.writer_ids[0])
    assert {0, 1, 2, 6, 7} <= set(found.labels.tolist())


def test_classes_that_differ_in_their_unicode_form_alone_are_refused(root):
    add(root, "ada", "\u00e9", "1.png")
    add(root, "bob", "e\u0301", "1.png")
    with pytest.raises(ValueError, match=r"bob/.*and that of .*ada/.*two Unicode forms"):
        open_image_folder(str(root), "all", 1)


def test_a_link_to_a_writer_is_followed_once_and_a_loop_or_a_dead_link_refused(root, tmp_path):
    elsewhere = root.parent / f"{root.name}-elsewhere"
    add(elsewhere, "eve", "tick", "1.png")
    (root / "a-link").symlink_to("bob")
    (root / "eve").symlink_to(elsewhere / "eve")
    source = open_image_folder(str(root), "all", 1)
    assert sorted(source.writer_ids + source.held_out_writers) == [*WRITERS, "eve"]
    assert source.notes == ("'a-link' is a link to 'bob', which is read once",)
    for target, rule in (("..", "a loop"), ("gone", "leads nowhere"), ("loop", "leads nowhere")):
        (root / "loop").symlink_to(target)
        with pytest.raises(ValueError, match=f"loop: .*{rule}"):
            open_image_folder(str(root), "all", 1)
        (root / "loop").unlink()
    (root / "ada" / "tick" / "2.png").symlink_to("gone.png")
    with pytest.raises(ValueError, match=r"2\.png: a link to a file that is not there"):
        open_image_folder(str(root), "all", 1)


@pytest.mark.parametrize(
    ("place", "rule"),
    [("ada/a.png", "must be a class's folder"), ("ada/tick/a.gif", "must be a picture")],
)
def test_a_file_that_would_be_skipped_is_refused_by_name(root, place, rule):
    (root / place).write_text("")
    with pytest.raises(ValueError, match=f"{place}: .*{rule}"):
        open_image_folder(str(root), "all", 1)


def test_folders_without_images_and_unfit_settings_are_refused(root, tmp_path_factory):
    with pytest.raises(ValueError, match="1 of 4 writers"):
        open_image_folder(str(root), "all", 3)
    with pytest.raises(ValueError, match="classes='digits' must be one of all"):
        open_image_folder(str(root), "digits", 1)
    with pytest.raises(ValueError, match="a folder for each writer"):
        open_image_folder(str(tmp_path_factory.mktemp("empty")), "all", 1)
    (root / "eve" / "tick").mkdir(parents=True)
    with pytest.raises(ValueError, match="eve: a writer without images"):
        open_image_folder(str(root), "all", 1)


NAMES = ("a", "b", "c")
INK = np.zeros((6, 28, 28), np.uint8)
INK[:, 10:20, 10:20] = 255
INK[3, 12, 12] = 51
INK[range(6), range(6), 6] = 255  # no two images are the same
LABELS = np.array([0, 1, 2, 0, 1, 2])


def as_shares(shape):
    return INK.reshape(shape).astype(np.float32) / np.float32(255)


def npz(path, **arrays):
    np.savez(path / "own.npz", **arrays)
    return path / "own.npz"


def npy_named_npz(path):
    with (path / "own.npz").open("wb") as file:
        np.save(file, INK)
    return path / "own.npz"


def damaged_npz(path):
    np.savez_compressed(path / "own.npz", images=INK, labels=LABELS)
    content = bytearray((path / "own.npz").read_bytes())
    start = content.index(b"images.npy") + len(b"images.npy")  # of what numpy pads and deflates
    start += int.from_bytes(content[28:30], "little")
    content[start] |= 0b110  # no type of block
    (path / "own.npz").write_bytes(content)
    return path / "own.npz"


def hdf5(path, suffix=".h5", **arrays):
    with h5py.File(path / f"own{suffix}", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path / f"own{suffix}"


def png_folder(path, names="aabbcc"):
    for number, name in enumerate(names):
        (path / "own" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - INK[number]).save(path / "own" / name / f"{number}.png")
    return path / "own"


@pytest.mark.parametrize("write", [npz, hdf5])
@pytest.mark.parametrize("shape", [(6, 28, 28), (6, 1, 28, 28), (6, 784)])
@pytest.mark.parametrize("kind", ["u1", "f4", "f8"])
def test_a_file_of_bytes_or_shares_in_any_usual_shape_is_read(tmp_path, write, shape, kind):
    pixels = INK.reshape(shape) if kind == "u1" else as_shares(shape).astype(kind)
    found = read_own_images(write(tmp_path, images=pixels, labels=LABELS.astype("u1")), NAMES)
    assert (found.images.dtype, found.labels.dtype) == (np.float32, np.int64)
    assert found.images.tobytes() == as_shares((6, 1, 28, 28)).tobytes()
    assert found.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
@pytest.mark.parametrize("shape", [(6, 28, 28), (6, 784), (6, 1, 28, 28)])
def test_pixels_of_hdf5_are_paper_and_not_ink(tmp_path, suffix, shape):
    found = read_own_images(
        hdf5(tmp_path, suffix, pixels=1 - as_shares(shape), labels=LABELS), NAMES
    )
    assert found.images == pytest.approx(as_shares((6, 1, 28, 28)), abs=1e-6)


def test_a_folder_of_classes_has_the_labels_of_the_run(tmp_path):
    found = read_own_images(png_folder(tmp_path, "ccaacc"), ("a", "b", "c"))
    assert found.labels.tolist() == [0, 0, 2, 2, 2, 2]
    assert found.images.max() == 1
    assert found.images[..., 6:9, :].max() == 0


WRONG = {
    "labels is missing": lambda p: npz(p, images=INK),
    "images is missing": lambda p: npz(p, pixels=INK, labels=LABELS),
    "must hold images and labels; images is missing": lambda p: hdf5(p, labels=LABELS),
    "must be .N, 28, 28.": lambda p: npz(p, images=INK[:, :14], labels=LABELS),
    "must be bytes or numbers in": lambda p: npz(p, images=INK.astype("i8"), labels=LABELS),
    "pixels must lie in .0, 1.": lambda p: npz(p, images=INK.astype("f4"), labels=LABELS),
    "labels must be whole numbers": lambda p: npz(p, images=INK, labels=LABELS.astype("f4")),
    "labels .N,., not": lambda p: npz(p, images=INK, labels=LABELS[:5]),
    "no image": lambda p: npz(p, images=INK[:0], labels=LABELS[:0]),
    "label 3 must be 0 .. 2": lambda p: npz(p, images=INK, labels=LABELS + 1),
    "label -1 must be": lambda p: npz(p, images=INK, labels=LABELS - 1),
    "paper must be 0 and ink 1": lambda p: npz(p, images=255 - INK, labels=LABELS),
    "paper must be 0 and": lambda p: hdf5(p, pixels=as_shares((6, 784)), labels=LABELS),
    "pixels: pixels must lie in": lambda p: hdf5(p, pixels=INK.astype("f4"), labels=LABELS),
    "images and labels, as numbers": lambda p: npz(p, images=np.array([{}]), labels=LABELS),
    "must be an npz file .*one array": npy_named_npz,
    "must be an npz file .*invalid block type": damaged_npz,
    "must be an HDF5 file of arrays": lambda p: hdf5(p, **{"images/a": INK, "labels": LABELS}),
    "must be named as one of the classes": lambda p: png_folder(p, "aabbcd"),
    "must be a folder of CLASS": lambda p: png_folder(p) / "a" / "0.png",
}


@pytest.mark.parametrize("said", WRONG)
def test_own_images_not_as_described_are_refused_with_the_rule(tmp_path, said):
    with pytest.raises(ValueError, match=said) as refused:
        read_own_images(WRONG[said](tmp_path), NAMES)
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("name", ["own.npz", "own.h5", "own.txt"])
def test_a_file_of_another_kind_is_refused_and_a_missing_one_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=name):
        read_own_images(tmp_path / name, NAMES)
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(ValueError, match=f"{name}: must be an? "):
        read_own_images(tmp_path / name, NAMES)
