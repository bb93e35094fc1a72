import numpy as np
import pytest

from kvprefix.stats.replayed import Replayed


def test_the_hit_rate_is_of_the_requests_that_were_served():
    replayed = Replayed(hit_tokens=np.array([30, -1, 10]), prompt_tokens=np.array([60, 1000, 40]))
    assert replayed.hit_rate == 0.4 and len(replayed) == 3  # (30 + 10) / (60 + 40)
    assert (replayed.evictions, replayed.waited_s, replayed.label, replayed.details) == (None, None, "", {})


@pytest.mark.parametrize("hits", [[], [-1], [0]])
def test_without_a_prompt_token_there_is_no_rate(hits):
    prompts = [0 if hit == 0 else 5 for hit in hits]
    replayed = Replayed(hit_tokens=np.array(hits, np.int64), prompt_tokens=np.array(prompts, np.int64), label="x")
    assert np.isnan(replayed.hit_rate) and "token hit rate  –" in repr(replayed)
