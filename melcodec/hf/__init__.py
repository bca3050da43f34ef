"""melcodec in transformers (extra ``hf``): importing this makes AutoConfig, AutoModel and AutoFeatureExtractor know it.

import melcodec.hf
from transformers import AutoFeatureExtractor, AutoModel

model = AutoModel.from_pretrained("user/name")
features = AutoFeatureExtractor.from_pretrained("user/name")
"""

from __future__ import annotations

from melcodec.errors import MelcodecError

try:
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel
except ImportError:
    raise MelcodecError("melcodec.hf needs the package transformers", 'pip install "melcodec[hf]"', "needs-package") from None

from melcodec.hf.config import MelcodecConfig
from melcodec.hf.features import MelcodecFeatureExtractor
from melcodec.hf.model import MelcodecModel

__all__ = ["MelcodecConfig", "MelcodecFeatureExtractor", "MelcodecModel"]

AutoConfig.register(MelcodecConfig.model_type, MelcodecConfig, exist_ok=True)
AutoModel.register(MelcodecConfig, MelcodecModel, exist_ok=True)
AutoFeatureExtractor.register(MelcodecConfig, MelcodecFeatureExtractor, exist_ok=True)
