"""The colours of classes, in every page, plot and video."""

# Okabe and Ito's palette, whose colours colour-blind people can tell apart.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#999999")


def rgb(code: str) -> tuple[int, int, int]:
    """Red, green and blue of a code such as "#0072b2", 8 bits each."""
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)
