"""Pixels to a PNG file."""

from __future__ import annotations

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {3: 2, 4: 6}
"""Of a PNG, by its number of channels."""


def png_bytes(pixels: np.ndarray, dpi: float) -> bytes:
    """Pixels as a PNG file.

    Parameters
    ----------
    pixels : ndarray of uint8, (row, column, 3 or 4)
        Red, green, blue, and alpha where there is one; top row first.
    dpi : float
        Pixels an inch, as the file tells it.

    Notes
    -----
    Rows are deflated unfiltered: drawings have flat areas and sharp edges, for which this takes two thirds
    of the time of trying filters, and fewer bytes (figures of one run: 0.8 s and 4.8 MB beside 1.2 s and
    5.0 MB).
    """
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + channels * width), dtype=np.uint8)  # a row begins with filter 0, none
    rows[:, 1:].reshape(pixels.shape)[:] = pixels  # a view: one copy
    metre = round(dpi / 0.0254)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)),
        (b"pHYs", struct.pack(">IIB", metre, metre, 1)),
        (b"tEXt", b"Software\0factorlab"),
        (b"IDAT", zlib.compress(rows, 6)),
        (b"IEND", b""),
    )
    return SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
