import pytest

from store.view.marks import class_text, label_text, short_text, strength


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("tench, Tinca tinca", "0 tench"),
        ("sea anemone", "0 sea anemone"),
        ("0", "0"),
        (", no first synonym", "0 , no first synonym"),
        (60 * "x" + ", y", f"0 {31 * 'x'}\u2026"),
        ("a\nb\x1b[2J, c", "0 a\\nb\\x1b[2J"),
    ],
)
def test_short_text_is_the_number_and_the_first_synonym(name: str, short: str) -> None:
    assert short_text(0, name) == short
    assert len(short_text(0, name)) <= len(class_text(0, name))


def test_label_text_is_short_or_says_that_there_is_none() -> None:
    assert (label_text(0, "tench, Tinca tinca"), label_text(7, None), label_text(-1, None)) == ("0 tench", "7", "none")


def test_no_cell_is_invisible_and_the_surest_is_whole() -> None:
    assert (strength(0), strength(1)) == (0.4, 1)
    assert strength(0.004) < 0.41
