"""The complexity figures that the paper prints, and what is known about the images behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mga_kernels.networks import ModelConfig

from ..files.records import Record
from ..settings.values import parse_split

DATASETS = ("Urban100", "Test2K", "Test4K")
LETTERS = {"base": "B", "decomposed": "D", "all": "A", "masked": "M"}

# Mean number of LR pixels on Urban100 by scale and p, the LR images being cropped to a multiple of p. For p = 2 and 8
# it was worked back from counts of five digits, so it is known to some pixels only, which are 0.02 % of a figure.
URBAN100_PIXELS = {(4, 4): 48089.92, (3, 4): 85180.32, (2, 4): 193323.36, (4, 2): 48317.0, (4, 8): 47865.0}
# Test2K and Test4K are not published. Their means for p = 4 follow from one figure for each scale: that of a variant
# whose cost is proportional to the number of pixels, the one with most digits. All other figures test it.
INFERRED_FROM = {4: (1, "rcan", "all"), 3: (1, "rcan", "all"), 2: (5, "pan", "decomposed")}

NOTES = {
    "a": "Misprint: these are the parameters with the upsampler for x2 (64 -> 256 channels): 1,103,360, 1,673,024 and "
    "1,711,156. The GMACs beside them are those of the upsampler for x3 (64 -> 576), as counted here.",
    "b": "The mean number of LR pixels was inferred from this figure, so it tests nothing.",
    "c": "Depends on the mean size of the images cropped to a multiple of 8, which is not known for this data set. The "
    "figure implies 2.0 % fewer pixels than after cropping to a multiple of 4.",
    "d": "Misprint of 50.31, which Table 1 has.",
}

# table, scale, network, variant, setting, parameters, and "FLOPs (G)" on Urban100, Test2K and Test4K. Rows of Tables 3
# to 6 that differ from others in training alone are left out.
_FIGURES = """
1 3 fsrcnn B - 23K 11.25 26.27 100.77
1 3 fsrcnn D - 42K 22.08 51.55 197.76
1 3 fsrcnn A - 42K 22.36 52.20 200.26
1 3 fsrcnn M - 43K 13.45 28.61 103.85
1 3 pan B - 204K 27.69 64.66 248.07
1 3 pan D - 296K 49.42 115.38 442.68
1 3 pan A - 296K 67.18 156.84 601.75
1 3 pan M - 311K 36.34 74.94 266.49
1 3 rfdn B - 424K 34.42 80.37 308.37
1 3 rfdn D - 698K 57.04 133.18 510.98
1 3 rfdn A - 698K 81.35 189.94 728.73
1 3 rfdn M - 721K 45.16 93.67 334.38
1 3 srresnet B - 1.10M 120.13 280.49 1076.11
1 3 srresnet D - 1.67M 194.93 455.14 1746.16
1 3 srresnet A - 1.67M 234.22 546.86 2098.07
1 3 srresnet M - 1.71M 144.70 309.26 1125.70
1 3 rcan B - 11.05M 934.84 2182.72 8374.18
1 3 rcan D - 16.07M 1360.41 3176.36 12186.37
1 3 rcan A - 16.07M 1851.63 4323.29 16586.64
1 3 rcan M - 16.11M 1110.19 2362.27 8574.54
1 4 fsrcnn B - 23K 10.93 25.43 97.57
1 4 fsrcnn D - 42K 21.63 50.31 193.01
1 4 fsrcnn A - 42K 21.78 50.67 194.41
1 4 fsrcnn M - 43K 14.60 29.19 101.74
1 4 pan B - 215K 20.84 48.47 185.96
1 4 pan D - 313K 36.05 83.86 321.74
1 4 pan A - 313K 45.53 105.91 406.34
1 4 pan M - 328K 29.74 58.30 200.37
1 4 rfdn B - 433K 19.89 46.27 177.51
1 4 rfdn D - 717K 33.11 77.03 295.53
1 4 rfdn A - 717K 46.83 108.95 418.02
1 4 rfdn M - 740K 29.94 57.75 196.15
1 4 srresnet B - 1.25M 92.59 215.40 826.38
1 4 srresnet D - 1.97M 159.59 371.26 1424.36
1 4 srresnet A - 1.97M 181.77 422.85 1622.31
1 4 srresnet M - 2.01M 124.04 249.20 871.89
1 4 rcan B - 11.02M 547.86 1274.50 4889.71
1 4 rcan D - 16.00M 808.21 1880.14 7213.30
1 4 rcan A - 16.00M 1085.53 2525.29 9688.46
1 4 rcan M - 16.04M 728.52 1457.51 5084.44
3 4 pan M mask_classes=1 - 29.74 58.30 200.37
4 2 fsrcnn B - - 12.38 28.65 109.92
4 2 fsrcnn M - - 13.63 30.23 113.15
4 2 fsrcnn D - - 23.80 55.08 211.33
5 2 pan M split=10+6 - 50.58 110.33 408.74
5 2 pan M split=12+4 - 55.14 122.25 457.42
5 2 pan M split=14+2 - 59.69 134.17 506.09
5 2 pan D - - 73.91 171.09 656.39
6 4 fsrcnn B - - 10.93 25.43 97.57
6 4 fsrcnn M patch_size=2 - 14.73 29.26 101.82
6 4 fsrcnn M patch_size=4 - 14.60 29.19 101.74
6 4 fsrcnn M patch_size=8 - 14.52 28.64 101.71
6 4 fsrcnn D - - 21.63 20.31 193.01
"""


@dataclass(frozen=True)
class Row:
    """A line of one of the paper's tables; figures as they are printed, for their number of digits."""

    table: int
    scale: int
    network: str
    variant: str
    setting: str  # "split=10+6", "patch_size=8", "mask_classes=1" or nothing
    params: str | None
    gmacs: dict[str, str]

    @property
    def name(self) -> str:
        """Such as "PAN-M(10+6)"."""
        network = "SRResNet" if self.network == "srresnet" else self.network.upper()
        value = self.setting.partition("=")[2]
        value = "1C" if self.setting == "mask_classes=1" else value
        return f"{network}-{LETTERS[self.variant]}" + (f"({value})" if value else "")

    def config(self) -> ModelConfig:
        name, _, value = self.setting.partition("=")
        settings: Record = {}
        if name == "split":
            settings = {"split": parse_split(value)}
        elif name == "patch_size":
            settings = {"patch_size": int(value)}
        elif name == "mask_classes":
            settings = {"mask": {"classes": int(value)}}
        return ModelConfig(self.network, self.scale, **settings)


def rows() -> Iterator[Row]:
    variants = {letter: variant for variant, letter in LETTERS.items()}
    for line in _FIGURES.strip().splitlines():
        table, scale, network, variant, setting, params, *gmacs = line.split()
        yield Row(
            int(table),
            int(scale),
            network,
            variants[variant],
            setting.strip("-"),
            None if params == "-" else params,
            dict(zip(DATASETS, gmacs, strict=True)),
        )


def note(row: Row, column: str) -> str | None:
    """Key into NOTES where a figure ("params" or a data set) is none that a count could be tested by."""
    if column == "params":
        return "a" if (row.network, row.scale) == ("srresnet", 3) else None
    if column != "Urban100":
        if INFERRED_FROM[row.scale] == (row.table, row.network, row.variant) and not row.setting:
            return "b"
        if row.setting == "patch_size=8" and column == "Test2K":
            return "c"
        if (row.table, row.variant, column) == (6, "decomposed", "Test2K"):
            return "d"
    return None
