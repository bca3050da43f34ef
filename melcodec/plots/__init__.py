"""Pictures: arrays in, matplotlib Figure out, and Figures into files.

matplotlib is imported where it is used: importing this package is cheap.
"""

from melcodec.plots.base import FORMATS, check_picture, figure_bytes, figure_pixels, save_figure
from melcodec.plots.codebook import plot_codebook, plot_codebook_use, plot_snapping, principal_plane
from melcodec.plots.mels import CODE_MAP, MEL_MAP, XTTS_SCALE, Scale, plot_codes, plot_mel, plot_roundtrip
from melcodec.plots.prior import plot_prior, plot_surprise
from melcodec.plots.sweep import beside, plot_sweep
from melcodec.plots.training import plot_training, read_curves, read_history
from melcodec.plots.usage import UsageHistory, perplexities, plot_usage, plot_usage_histories, plot_usage_history

__all__ = [
    "CODE_MAP",
    "FORMATS",
    "MEL_MAP",
    "XTTS_SCALE",
    "Scale",
    "UsageHistory",
    "beside",
    "check_picture",
    "figure_bytes",
    "figure_pixels",
    "perplexities",
    "plot_codebook",
    "plot_codebook_use",
    "plot_codes",
    "plot_mel",
    "plot_prior",
    "plot_roundtrip",
    "plot_snapping",
    "plot_surprise",
    "plot_sweep",
    "plot_training",
    "plot_usage",
    "plot_usage_histories",
    "plot_usage_history",
    "principal_plane",
    "read_curves",
    "read_history",
    "save_figure",
]
