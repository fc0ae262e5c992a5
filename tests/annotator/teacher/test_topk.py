import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.teacher.topk import fits_float16, keep_top_k


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 40), st.data())
def test_kept_scores_are_the_highest_less_the_mean_of_the_rest_and_so_is_the_tail(
    b: int, h: int, w: int, c: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, c))
    logits = torch.randn(b, h, w, c, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 999)))) * 5
    classes, scores, tail_logsumexp = keep_top_k(logits, k)
    assert classes.shape == scores.shape == (b, k, h, w)
    sorted_logits = logits.sort(dim=-1, descending=True).values
    centre = sorted_logits[..., k:].mean(dim=-1, keepdim=True) if k < c else torch.zeros(b, h, w, 1)
    torch.testing.assert_close(scores, (sorted_logits[..., :k] - centre).permute(0, 3, 1, 2))
    assert torch.equal(logits.gather(-1, classes.permute(0, 2, 3, 1)), sorted_logits[..., :k])
    torch.testing.assert_close(tail_logsumexp, sorted_logits[..., k:].logsumexp(dim=-1) - centre[..., 0])
    assert k == c or scores.min() >= 0
    # The tail makes each kept class's probability exact.
    exact = logits.softmax(-1).gather(-1, classes.permute(0, 2, 3, 1))
    total = torch.logaddexp(scores.logsumexp(dim=1), tail_logsumexp)
    torch.testing.assert_close((scores - total[:, None]).exp().permute(0, 2, 3, 1), exact)


@pytest.mark.parametrize("shift", [-100.0, 7.25, 30_000.0])
def test_a_shift_of_all_logits_changes_nothing(shift: float) -> None:
    logits = torch.randn(2, 3, 3, 50, generator=torch.Generator().manual_seed(0)) * 5
    for ours, theirs in zip(keep_top_k(logits + shift, 5), keep_top_k(logits, 5), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-2)  # of float32 at 30,000


def test_equal_logits_have_scores_of_zero() -> None:
    _, scores, _ = keep_top_k(torch.full((1, 1, 1, 1000), 0.1), 5)
    assert torch.equal(scores, torch.zeros_like(scores))


@pytest.mark.parametrize("value", [float("-inf"), float("inf"), float("nan")])
def test_logits_that_are_not_finite_do_not_fit(value: float) -> None:
    logits = torch.zeros(1, 1, 1, 10)
    logits[..., 7] = value
    assert not fits_float16(keep_top_k(logits, 3)[1])


def test_logits_beyond_float16_do_not_fit() -> None:
    assert fits_float16(torch.tensor([65_504.0, -65_504.0]))
    for value in (65_505.0, float("inf"), float("nan")):
        assert not fits_float16(torch.tensor([1.0, value]))
