import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.teacher.topk import fits_float16, keep_top_k


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 40), st.data())
def test_kept_scores_are_the_highest_and_the_tail_is_the_rest(
    b: int, h: int, w: int, c: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, c))
    logits = torch.randn(b, h, w, c, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 999)))) * 5
    classes, scores, tail_logsumexp = keep_top_k(logits, k)
    assert classes.shape == scores.shape == (b, k, h, w)
    sorted_logits = logits.sort(dim=-1, descending=True).values
    assert torch.equal(scores, sorted_logits[..., :k].permute(0, 3, 1, 2))
    assert torch.equal(logits.gather(-1, classes.permute(0, 2, 3, 1)), scores.permute(0, 2, 3, 1))
    torch.testing.assert_close(tail_logsumexp, sorted_logits[..., k:].logsumexp(dim=-1))
    # The tail makes each kept class's probability exact.
    exact = logits.softmax(-1).gather(-1, classes.permute(0, 2, 3, 1))
    total = torch.logaddexp(scores.logsumexp(dim=1), tail_logsumexp)
    torch.testing.assert_close((scores - total[:, None]).exp().permute(0, 2, 3, 1), exact)


def test_logits_beyond_float16_do_not_fit() -> None:
    assert fits_float16(torch.tensor([65_504.0, -65_504.0]))
    for value in (65_505.0, float("inf"), float("nan")):
        assert not fits_float16(torch.tensor([1.0, value]))
