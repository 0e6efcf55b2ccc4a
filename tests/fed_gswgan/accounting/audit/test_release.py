import numpy as np
import pytest

from fed_gswgan.accounting.audit_cases import FaultyRelease, release
from fed_gswgan.privacy.events import SanitizedGradientEvent

EVENT = SanitizedGradientEvent(samples=2, clipping="sample", clipping_bound=1.0, noise_stddev=1.0)
ZEROS = np.zeros((2, 1, 2, 2), np.float32)


def raising(messages, event):
    raise KeyError("a digit")


@pytest.mark.parametrize(
    ("sanitize_messages", "said"),
    [
        (raising, "KeyError: 'a digit'"),
        (lambda messages, event: messages[:1], "1 answers to 2 messages"),
        (lambda messages, event: [m.astype(np.float64) for m in messages], "float64"),
        (lambda messages, event: [m.tolist() for m in messages], "list"),
        (lambda messages, event: [m[:1] for m in messages], r"shape \(1, 1, 2, 2\)"),
        (lambda messages, event: [m + np.float32(np.nan) for m in messages], "not finite"),
        (lambda messages, event: [m - np.float32(np.inf) for m in messages], "not finite"),
    ],
)
def test_an_answer_of_a_form_of_its_own_is_a_fault(sanitize_messages, said):
    with pytest.raises(FaultyRelease, match=said):
        release(sanitize_messages, [ZEROS, ZEROS], EVENT)


def test_a_sanitizer_that_writes_on_its_input_does_not_spoil_the_next_release():
    def add_one(messages, event):
        for message in messages:
            message += 1
        return messages

    for _ in range(2):
        (released,) = release(add_one, [ZEROS], EVENT)
        assert (released == 1).all()
