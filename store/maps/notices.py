"""What speaks against training with label maps, as sentences: flat targets, contradicted labels, shifted scores."""

from collections.abc import Iterator

FLAT_TARGETS = 0.75  # share of a uniform target's entropy; 0.13 to 0.5 at a fitting input size, 0.84 at twice that
LEAST_AGREEMENT = 0.5  # share of the labelled images whose label is top-1 in a cell
NOT_POSITIVE = 0.01  # share of the cells whose highest logit is not above that of a class that is not kept


def target_notices(*, entropy_bits: float | None, most_bits: float, with_label: int, label_top1: int) -> Iterator[str]:
    """Say so where the targets of whole images are nearly uniform, or most labels are top-1 in no cell.

    Args:
        entropy_bits: mean over the images; None without images.
        most_bits: of a uniform target.
        with_label: images whose label is one of the teacher's classes.
        label_top1: of these, the images whose label is top-1 in at least one cell.
    """
    if entropy_bits is not None and entropy_bits > FLAT_TARGETS * most_bits:
        yield (
            f"the targets are nearly uniform ({entropy_bits:.1f} of {most_bits:.1f} bits), so they teach little: "
            "try a smaller --input-size, or another teacher; a temperature below 1 makes them sharper"
        )
    if label_top1 < LEAST_AGREEMENT * with_label:
        yield (
            f"{with_label - label_top1:,} of {with_label:,} labels are top-1 in no cell of their image: check that the "
            "teacher numbers the classes as the shards do; else try another --input-size or teacher"
        )


def score_notice(share: float) -> Iterator[str]:
    """Say so where a class that a cell does not keep counts more than the classes that it keeps.

    Scores of the kind `logit` are pooled with 0 for the classes outside the top K. That holds for logits whose mean
    is about 0, as softmax training gives them; not for log-probabilities, or logits of binary cross-entropy.

    Args:
        share: of the cells whose highest score is not above 0, from `store.maps.statistics.not_positive`.
    """
    if share > NOT_POSITIVE:
        yield (
            f"in {share:.0%} of the cells no score is above 0, the value of all classes that are not kept: the targets "
            "are flat or inverted. Published maps should hold logits whose mean is about 0; labels of an earlier "
            "release are mended by annotating again, which centres the scores of any teacher"
        )
