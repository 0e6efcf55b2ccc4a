import json
import math
import re
from dataclasses import fields, replace

import pytest

from fed_gswgan.privacy.events import SanitizedGradientEvent
from fed_gswgan.privacy.policy import DevicePolicy, read_policy
from fed_gswgan.privacy.refusals import RequestExceedsPolicy

POLICY = DevicePolicy(
    max_epsilon=8.0,
    max_samples=16,
    clipping="message",
    max_clipping_bound=0.5,
    min_noise_stddev=4.0,
)
AT_EVERY_LIMIT = SanitizedGradientEvent(
    samples=16, clipping="message", clipping_bound=0.5, noise_stddev=4.0
)

# Another value of every limit there is.
OTHER = {
    "neighboring_relation": "zero-out",
    "delta": 1e-6,
    "max_epsilon": math.nextafter(8.0, 9),
    "max_participations": 1,
    "max_samples": 17,
    "max_critic_batches": 1,
    "clipping": "sample",
    "max_clipping_bound": 0.6,
    "min_noise_stddev": 4.5,
    "min_separation_rounds": 1,
    "min_separation_seconds": 0.5,
    "lost_replies": "refuse",
    "trusted_server": True,
}


def test_a_request_at_every_limit_is_admitted():
    assert POLICY.admit(AT_EVERY_LIMIT) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("samples", 1),
        ("clipping_bound", 1e-6),
        ("noise_stddev", math.nextafter(4.0, 5)),
        ("noise_stddev", 1e6),
    ],
)
def test_asking_for_less_is_always_admitted(field, value):
    assert POLICY.admit(replace(AT_EVERY_LIMIT, **{field: value})) is None


def test_a_reply_clipped_as_a_whole_is_admitted_where_rows_are_too():
    looser = replace(POLICY, clipping="sample")
    for clipping in ("sample", "message"):
        assert looser.admit(replace(AT_EVERY_LIMIT, clipping=clipping)) is None


def test_an_owner_who_trusts_the_server_lets_it_add_the_noise_and_counts_as_much_of_it():
    trusting = replace(POLICY, trusted_server=True)
    unnoised = replace(AT_EVERY_LIMIT, noise_added_by="server")
    for event in (AT_EVERY_LIMIT, unnoised):
        assert trusting.admit(event) is None
    with pytest.raises(RequestExceedsPolicy, match=r"^noise-stddev=3.9 must be >= 4.0$"):
        trusting.admit(replace(unnoised, noise_stddev=3.9))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("samples", 17, "samples=17 must be <= 16"),
        ("clipping", "sample", "clipping=sample must be message"),
        ("clipping_bound", 0.5000001, "clipping-bound=0.5000001 must be <= 0.5"),
        ("clipping_bound", 0.75, "clipping-bound=0.75 must be <= 0.5"),
        ("noise_stddev", 3.9999999, "noise-stddev=3.9999999 must be >= 4.0"),
        ("noise_stddev", 2.14, "noise-stddev=2.14 must be >= 4.0"),
        (
            "noise_added_by",
            "server",
            "noise-added-by=server must be device: trusted-server is false here",
        ),
    ],
)
def test_asking_for_more_is_refused_with_field_value_and_limit(field, value, said):
    with pytest.raises(RequestExceedsPolicy, match=f"^{said}$"):
        POLICY.admit(replace(AT_EVERY_LIMIT, **{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_samples", 1),
        ("max_critic_batches", 0),
        ("max_clipping_bound", math.nextafter(1e-30, 1)),
        ("max_clipping_bound", math.nextafter(1e30, 0)),
        ("min_noise_stddev", math.nextafter(1e-9, 1)),
        ("min_noise_stddev", math.nextafter(1e9, 0)),
        ("min_separation_rounds", 0),
        ("min_separation_seconds", 0.0),
    ],
)
def test_a_limit_just_inside_its_range_is_a_policy(field, value):
    assert getattr(DevicePolicy(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("max_samples", 0, "a whole number >= 1"),
        ("max_samples", 1.5, "a whole number >= 1"),
        ("max_critic_batches", -1, "a whole number >= 0"),
        ("clipping", "row", "one of sample, message"),
        ("max_clipping_bound", 1e-30, "strictly between"),
        ("max_clipping_bound", 1e30, "strictly between"),
        ("min_noise_stddev", 1e-9, "strictly between"),
        ("min_noise_stddev", 1e9, "strictly between"),
        ("min_separation_rounds", -1, "a whole number >= 0"),
        ("min_separation_seconds", -5e-324, ">= 0 and finite"),
        ("lost_replies", "ignore", "one of charge, refuse"),
    ],
)
def test_a_limit_just_outside_is_refused_by_setting_value_and_rule(field, value, rule):
    setting = re.escape(f"{field.replace('_', '-')}={value!r}")
    with pytest.raises(ValueError, match=f"^{setting} must .*{rule}"):
        DevicePolicy(**{field: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "field",
    ["max_samples", "max_critic_batches", "max_clipping_bound", "min_noise_stddev",
     "min_separation_rounds", "min_separation_seconds"],
)  # fmt: skip
def test_no_limit_is_infinite_or_no_number(field, value):
    with pytest.raises(ValueError, match=rf"^{field.replace('_', '-')}={value} must "):
        DevicePolicy(**{field: value})


@pytest.mark.parametrize("field", [item.name for item in fields(DevicePolicy)])
def test_the_hash_changes_with_every_limit(field):
    assert replace(POLICY, **{field: OTHER[field]}).hash() != POLICY.hash()


@pytest.fixture
def policy_file(tmp_path):
    """Write a policy file and return its path."""

    def write(text):
        path = tmp_path / "policy.toml"
        path.write_text(text)
        return path

    return write


def test_every_limit_can_be_set_in_a_file(policy_file):
    lines = (f"{name.replace('_', '-')} = {json.dumps(value)}" for name, value in OTHER.items())
    assert read_policy(policy_file("\n".join(lines))) == DevicePolicy(**OTHER)


def test_a_limit_that_the_file_leaves_out_takes_its_default(policy_file):
    assert read_policy(policy_file("max-epsilon = 3.0")) == DevicePolicy(max_epsilon=3.0)


def test_the_hash_does_not_change_with_how_the_file_is_written(policy_file):
    plain = read_policy(policy_file("max-epsilon = 8.0\nmin-noise-stddev = 4.0\ndelta = 1e-5\n"))
    dressed = read_policy(
        policy_file("# Ours.\n\nmin-noise-stddev=4  # enough\nmax-samples = 32\nmax-epsilon = +8\n")
    )
    assert dressed.hash() == plain.hash()


@pytest.mark.parametrize("text", ["", "# none", "max-epsilon = inf", "min-noise-stddev = 4.0"])
def test_a_file_that_forgets_the_budget_is_no_policy(policy_file, text):
    with pytest.raises(ValueError, match=r"^policy.toml: max-epsilon must be given, and finite$"):
        read_policy(policy_file(text))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("max-epsilons = 9", r"policy.toml: max-epsilons=9: no such limit; known: .*max-epsilon"),
        ("max_samples = 9", "policy.toml: max_samples=9: no such limit"),
        ("noise-stddev = 9", "policy.toml: noise-stddev=9: no such limit"),
        ("[limits]\nmax-samples = 9", r"policy.toml: limits={'max-samples': 9}: no such limit"),
        ("max-samples = 9.0", "max-samples=9.0 must be of type int"),
        ("max-samples = true", "max-samples=True must be of type int"),
        ("min-noise-stddev = '9'", "min-noise-stddev='9' must be of type float"),
        ("trusted-server = 1", "trusted-server=1 must be of type bool"),
        ("lost-replies = 0", "lost-replies=0 must be of type str"),
        ("min-noise-stddev = nan", "min-noise-stddev=nan must lie strictly between"),
        ("min-noise-stddev = 0", "min-noise-stddev=0.0 must lie strictly between"),
        ("min-separation-seconds = inf", "min-separation-seconds=inf must be >= 0 and finite"),
        ("delta = 1", "delta=1.0 must lie strictly between 0 and 1"),
    ],
)
def test_a_limit_that_is_none_is_refused_by_name(policy_file, line, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        read_policy(policy_file(f"max-epsilon = 3.0\n{line}\n"))


@pytest.mark.parametrize("value", ["nan", "-1.0", "0.0", "-inf"])
def test_a_budget_that_is_none_is_refused_by_name(policy_file, value):
    with pytest.raises(ValueError, match=rf"^max-epsilon={value} must be > 0 and finite"):
        read_policy(policy_file(f"max-epsilon = {value}"))


@pytest.mark.parametrize("text", ["max-epsilon: 3.0", "max-epsilon = 3\nmax-epsilon = 9"])
def test_a_file_that_is_no_toml_is_refused(policy_file, text):
    with pytest.raises(ValueError):
        read_policy(policy_file(text))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "policy.toml").write_bytes(b"max-epsilon = 3.0 # \xff\n")
    with pytest.raises(ValueError):
        read_policy(tmp_path / "policy.toml")


def test_a_file_that_is_not_there_is_not_a_policy_of_defaults(tmp_path):
    with pytest.raises(OSError, match=r"policy.toml"):
        read_policy(tmp_path / "policy.toml")
