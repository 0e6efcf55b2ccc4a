import json

import pytest

from fed_gswgan.data.leaf_index import index_users


def write(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def leaf(**changes):
    users = {
        "f1": {"x": [[0.5] * 3], "y": [7]},
        'odd "name": {': {"x": [[1], [2]], "y": [1, 2]},
    }
    return {"users": list(users), "num_samples": [1, 2], "user_data": users, **changes}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_each_user_is_read_alone_however_the_file_is_laid_out(tmp_path, indent, reverse):
    content = dict(reversed(leaf().items())) if reverse else leaf()
    spans = index_users(write(tmp_path, json.dumps(content, indent=indent)))
    assert [(span.user, span.image_count) for span in spans] == [("f1", 1), ('odd "name": {', 2)]
    assert [span.read() for span in spans] == [([[0.5] * 3], [7]), ([[1], [2]], [1, 2])]
    assert [span.read_labels() for span in spans] == [[7], [1, 2]]


def test_a_span_ends_before_the_next_users_object(tmp_path):
    path = write(tmp_path, leaf())
    first, second = index_users(path)
    assert b'"y": [7]' in path.read_bytes()[first.start : first.end]
    assert first.end == second.start


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("", "is empty"),
        ("[]", "a list 'users'"),
        ({"users": ["f1"]}, "a list 'num_samples'"),
        (leaf(users=["f1", "f2"]), "must name the same users"),
        (leaf(users=["f1", "f1"]), "must name the same users"),
        (leaf(num_samples=[1, 2, 3]), "they have 2, 3 and 2"),
        (leaf(num_samples=[0, 2]), "num_samples of user 'f1' is 0 and must be >= 1"),
        ('{"users": [f1], "num_samples": [1]}', "users: must be a JSON list"),
    ],
)
def test_another_layout_is_refused_with_the_file_and_the_rule(tmp_path, content, rule):
    with pytest.raises(ValueError, match=rf"a\.json.*{rule}"):
        index_users(write(tmp_path, content))


@pytest.mark.parametrize(
    ("user", "rule"),
    [
        ({"x": [[1], [2]], "y": [1]}, "f1/x: 2 entries, and num_samples says 1"),
        ({"x": [[1]], "y": [1, 2]}, "f1/y: 2 entries"),
        ({"x": [[1]]}, "'x' and 'y'"),
        ({"x": 1, "y": [1]}, "'x' and 'y'"),
    ],
)
def test_a_damaged_user_is_refused_with_file_and_user(tmp_path, user, rule):
    content = {"users": ["f1"], "num_samples": [1], "user_data": {"f1": user}}
    (span,) = index_users(write(tmp_path, content))
    with pytest.raises(ValueError, match=rf"a\.json:user_data/.*{rule}"):
        span.read()


def test_labels_that_are_missing_are_refused_without_reading_pixels(tmp_path):
    content = {"users": ["f1"], "num_samples": [1], "user_data": {"f1": {"x": [[1]]}}}
    (span,) = index_users(write(tmp_path, content))
    with pytest.raises(ValueError, match="user_data/f1: must hold a list 'y'"):
        span.read_labels()
