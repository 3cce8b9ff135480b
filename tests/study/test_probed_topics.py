"""Which topics are probed: those that both parts of the text have, at most so many."""

import numpy as np
import pytest

from archsae_core.metrics.probing import NoPassages
from archsae_study.experiments import probing


def test_topics_of_both_parts_are_probed():
    assert probing.probed(np.array([0, 0, 1, 2, -1]), np.array([2, 0, 3, -1])).tolist() == [0, 2]


def test_the_most_frequent_topics_are_probed_where_there_are_too_many(monkeypatch):
    monkeypatch.setattr(probing, "MOST_TOPICS", 2)
    assert probing.probed(np.array([0, 1, 1, 2, 2, 2]), np.array([0, 1, 2])).tolist() == [1, 2]


@pytest.mark.parametrize("heldout", [[5, 6], [0], [-1]])
def test_a_label_unique_for_each_document_is_no_topic(heldout):
    with pytest.raises(NoPassages, match=r"of .* topics, [01] have documents both"):
        probing.probed(np.arange(5), np.array(heldout))
