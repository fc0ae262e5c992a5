"""JPEGs that no encoder at hand writes: any sampling of the colours, scans repeated."""

import struct
from collections.abc import Sequence

import numpy as np

SOF, SOS, COMMENT, END = b"\xff\xc0", b"\xff\xda", b"\xff\xfe", b"\xff\xd9"


def segment(marker: bytes, content: bytes) -> bytes:
    return marker + struct.pack(">H", 2 + len(content)) + content


def sampled_jpeg(samplings: Sequence[tuple[int, int]], *, width: int = 100, height: int = 60) -> bytes:
    """A baseline JPEG of random flat blocks.

    Args:
        samplings: of each component, blocks in x and y in a unit.
        width: pixels.
        height: pixels.
    """
    count = len(samplings)
    frame = struct.pack(">BHHB", 8, height, width, count)
    frame += b"".join(bytes([i, h << 4 | v, 0]) for i, (h, v) in enumerate(samplings))
    # Codes: differences of a block's mean have categories 0 to 11, of four bits each; the rest of it is one bit, "0".
    tables = [bytes([0x00, 0, 0, 0, 12, *[0] * 12, *range(12)]), bytes([0x10, 1, *[0] * 15, 0])]
    scan = bytes([count, *(byte for i in range(count) for byte in (i, 0)), 0, 63, 0])
    units = -(-width // (8 * max(h for h, _ in samplings))) * -(-height // (8 * max(v for _, v in samplings)))
    rng, levels, bits = np.random.default_rng(0), [0] * count, ""
    for _ in range(units):
        for i, (h, v) in enumerate(samplings):
            for level in rng.integers(-100, 100, h * v).tolist():
                bits += _difference(level - levels[i]) + "0"
                levels[i] = level
    return b"".join(
        [
            b"\xff\xd8",
            segment(b"\xff\xdb", bytes([0, *[8] * 64])),
            segment(SOF, frame),
            *(segment(b"\xff\xc4", table) for table in tables),
            segment(SOS, scan),
            _packed(bits),
            END,
        ]
    )


def _difference(value: int) -> str:
    category = abs(value).bit_length()
    return f"{category:04b}" + (f"{value if value > 0 else value + (1 << category) - 1:0{category}b}" if value else "")


def _packed(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")


def with_scans(data: bytes, count: int, *, before: bytes = b"") -> bytes:
    """A JPEG whose last scan is repeated so often, after some other bytes."""
    start, end = data.rindex(SOS), data.rindex(END)
    return data[:end] + before + data[start:end] * count + data[end:]


def claiming(data: bytes, width: int, height: int) -> bytes:
    """A JPEG with another size in its header."""
    frame = max(data.find(SOF), data.find(b"\xff\xc2"))
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]
