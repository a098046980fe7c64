"""Colours of classes, in all that is drawn."""

# Okabe and Ito's palette, which colour-blind people tell apart.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#999999")


def rgb(code: str) -> tuple[int, int, int]:
    """Red, green and blue, 8 bits each, of "#0072b2"."""
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)
