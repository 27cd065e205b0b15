"""docs/fcn.md says of the layers what the default configuration makes them."""

import re
from pathlib import Path

from train.fcn8 import CONVOLUTIONS_PER_BLOCK, Fcn8Config

DOC = Path(__file__).parents[2] / "docs" / "fcn.md"


def expected_parameters() -> dict[str, int]:
    config = Fcn8Config()
    widths, (six, seven), classes = config.block_widths, config.head_widths, config.classes
    found, channels = {}, 3
    for block, (width, count) in enumerate(zip(widths, CONVOLUTIONS_PER_BLOCK, strict=True), start=1):
        for index in range(1, count + 1):
            found[f"block{block}_conv{index}"] = 9 * channels * width + width
            channels = width
    found |= {"conv6": 49 * channels * six + six, "conv7": six * seven + seven, "conv7_upsample4": 16 * seven * classes}
    found |= {"pool4_conv": widths[3] * classes + classes, "pool4_upsample2": 4 * classes * classes}
    found |= {"pool3_conv": widths[2] * classes + classes, "add": 0, "upsample8": 64 * classes * classes}
    return found


def test_the_table_of_layers_is_right() -> None:
    rows = re.findall(r"^\| [`*]+(\w+)[`*]+.*\| \**([\d,]+)\** \|$", DOC.read_text(), re.MULTILINE)
    stated = {name: int(number.replace(",", "")) for name, number in rows}
    total = stated.pop("all")
    assert stated == expected_parameters()
    assert total == sum(stated.values()) == 135_066_008
