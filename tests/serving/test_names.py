"""DNS labels: valid, and never shared, whatever things are called."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from noria.serving.names import dns_label

_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
names = st.text(max_size=90) | st.from_regex(r"[a-z][a-z0-9-]{0,80}", fullmatch=True)


def test_a_name_that_is_a_label_stays_as_it_is():
    assert dns_label("churn-model-2") == "churn-model-2"
    assert dns_label("Churn model") == "churn-model-3ca7b3fb"


@given(names, st.integers(20, 63))
def test_whatever_it_is_called_it_gets_a_label_that_fits(name, longest):
    label = dns_label(name, longest=longest)
    assert _LABEL.fullmatch(label) and len(label) <= longest


@given(names, names)
def test_two_names_never_share_a_label(one, other):
    assume(one != other)
    assert dns_label(one) != dns_label(other)


@pytest.mark.parametrize("name", ["Churn", "churn!", "ünïcode", "a" * 80, "9lives", "-", ""])
def test_nobody_gets_a_label_that_another_was_given(name):
    assert dns_label(dns_label(name)) != dns_label(name)
