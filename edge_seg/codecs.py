"""How output videos may be compressed: the codecs, their defaults and their limits. Knows nothing about files."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ConfigurationError

# Codec -> its default crf and preset. Browsers play H.264 and AV1, and H.265 where the machine decodes it.
CODECS: dict[str, tuple[int, str]] = {
    "libx264": (23, "superfast"),
    "libx265": (28, "superfast"),
    "libsvtav1": (35, "10"),
}
X264_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
)  # fmt: skip
SVT_PRESETS = tuple(str(number) for number in range(14))


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """How frames are compressed. `crf`: quality, lower is better and larger; None and "" mean the codec's default."""

    codec: str = "libx264"
    crf: int | None = None
    preset: str = ""

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ConfigurationError(f"codec must be one of {', '.join(CODECS)}; got {self.codec!r}.")
        highest = 63 if self.codec == "libsvtav1" else 51
        if self.crf is not None and not 0 <= self.crf <= highest:
            raise ConfigurationError(f"crf of {self.codec} must lie between 0 (best) and {highest}; got {self.crf}.")
        presets = SVT_PRESETS if self.codec == "libsvtav1" else X264_PRESETS
        if self.preset and self.preset not in presets:
            raise ConfigurationError(
                f"preset of {self.codec} must be one of {', '.join(presets)}; got {self.preset!r}."
            )

    @property
    def remark(self) -> str:
        """A warning about playing the result, in words; "" if there is none."""
        if self.codec == "libx264" and self.crf == 0:
            return "crf 0 is lossless H.264 of a profile that many browsers do not play; 1 looks the same and plays"
        return ""

    def codec_options(self) -> dict[str, str]:
        """The options as FFmpeg's private options of the codec."""
        crf, preset = CODECS[self.codec]
        options = {"crf": str(crf if self.crf is None else self.crf), "preset": self.preset or preset}
        if self.codec == "libx265":
            options["x265-params"] = "log-level=none"
        return options
