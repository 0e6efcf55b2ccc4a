import pytest
from PIL import Image

from fed_gswgan.data.image_folder import open_image_folder

WRITERS = ["ada", "bob", "cleo", "dan"]


def add(root, writer, name, file, paper=255, ink=0):
    folder = root / writer / name
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", (28, 28), paper)
    image.putpixel((14, 14), ink)
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


def test_the_minimum_removes_writers(root):
    with pytest.raises(ValueError, match="1 of 4 writers"):
        open_image_folder(str(root), "all", 3)


def test_hidden_files_and_files_beside_the_writers_are_not_looked_at(root):
    (root / "README.txt").write_text("about")
    (root / ".git").mkdir()
    (root / "ada" / ".DS_Store").write_text("")
    (root / "ada" / "tick" / ".DS_Store").write_text("")
    assert len(open_image_folder(str(root), "all", 1).writer_ids) == 3


def test_dark_paper_is_refused_with_the_file(root):
    for writer in WRITERS:
        add(root, writer, "tick", "dark.png", paper=0, ink=255)
    source = open_image_folder(str(root), "all", 1)
    with pytest.raises(ValueError, match=r"tick.dark\.png: .*invert"):
        source.shard(source.writer_ids[0])


def test_a_writer_without_images_is_refused_by_folder(root):
    (root / "eve" / "tick").mkdir(parents=True)
    with pytest.raises(ValueError, match="eve: a writer without images"):
        open_image_folder(str(root), "all", 1)


@pytest.mark.parametrize(
    ("place", "rule"), [("ada/a.png", "must be a class's folder"), ("ada/tick/a.jpg", "PNG file")]
)
def test_a_file_that_would_be_skipped_is_refused_by_name(root, place, rule):
    (root / place).write_text("")
    with pytest.raises(ValueError, match=f"{place}: .*{rule}"):
        open_image_folder(str(root), "all", 1)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a folder for each writer"):
        open_image_folder(str(tmp_path), "all", 1)


def test_a_class_choice_is_refused(root):
    with pytest.raises(ValueError, match="classes='digits' must be one of all"):
        open_image_folder(str(root), "digits", 1)
