"""The networks of the transformers library: built from settings, and what they predict of packed sequences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from melcodec.errors import MelcodecError
from melcodec.prior.config import LlamaSettings, MambaSettings
from melcodec.tokens import Tokens

INSTALL = "pip install 'melcodec[prior]'"
IGNORED = -100  # a target that is no target


def need_transformers() -> Any:
    """The transformers module.

    Raises:
        MelcodecError: it is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise MelcodecError("a neural prior needs the transformers package", INSTALL) from None
    logging: Any = transformers.utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # it warns of CUDA kernels that are not installed
    return transformers


def build_network(settings: LlamaSettings | MambaSettings, tokens: Tokens) -> torch.nn.Module:
    """A network with random weights for the vocabulary of ``tokens``; what is drawn comes from torch's generator."""
    transformers = need_transformers()
    shared = {
        "vocab_size": tokens.vocabulary,
        "hidden_size": settings.width,
        "num_hidden_layers": settings.layers,
        "bos_token_id": tokens.begin,
        "eos_token_id": tokens.end,
        "pad_token_id": tokens.pad,
        "tie_word_embeddings": True,
        "use_cache": True,
    }
    match settings:
        case LlamaSettings():
            config = transformers.LlamaConfig(
                **shared,
                intermediate_size=settings.feed_forward,
                num_attention_heads=settings.heads,
                num_key_value_heads=settings.heads,
                max_position_embeddings=settings.context,
            )
            model = transformers.LlamaForCausalLM(config)
        case MambaSettings():
            config = transformers.MambaConfig(**shared, state_size=settings.state)
            model = transformers.MambaForCausalLM(config)
    if settings.dropout:
        add_dropout(model, settings.dropout)
    return model


def add_dropout(model: torch.nn.Module, share: float) -> None:
    """Drop ``share`` of what each layer adds to the hidden state, while training; transformers' Llama has no such setting."""

    def drop(module: torch.nn.Module, _: Any, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, tuple):
            return (F.dropout(output[0], share), *output[1:])
        return F.dropout(output, share)

    for name, module in model.named_modules():
        if name.rpartition(".")[2] in ("self_attn", "mlp", "mixer"):
            module.register_forward_hook(drop)


def logits_of(model: torch.nn.Module, rows: Tensor, positions: Tensor | None = None, documents: Tensor | None = None) -> Tensor:
    """Rows (B, R, W) of tokens -> logits (B, R, V) for the row after each.

    A row enters as the sum of its tokens' embeddings; that of padding is zero.

    Args:
        positions: (B, R), counted within each document.
        documents: (B, R), which document each row belongs to: attention never leaves it. None: all rows are one document.
    """
    inner: Any = model.module if hasattr(model, "module") else model
    embedded = inner.get_input_embeddings()(rows).sum(2)
    if documents is None or positions is None:
        return model(inputs_embeds=embedded, use_cache=False).logits
    same = documents[:, :, None] == documents[:, None, :]
    past = torch.ones(rows.shape[1], rows.shape[1], dtype=torch.bool, device=rows.device).tril()
    mask = (same & past)[:, None]
    return model(inputs_embeds=embedded, position_ids=positions, attention_mask=mask, use_cache=False).logits


def loss_of(logits: Tensor, targets: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Logits (B, R, V) and the rows that follow (B, R, W), ``IGNORED`` where nothing is asked -> nats in all, and how many.

    In the delay pattern the tokens of a row come from one hidden state, so that column q is a distribution over codebook q
    alone (and the end, for q = 0).
    """
    total = torch.zeros((), device=logits.device)
    for column in range(tokens.width):
        narrowed = logits.float()
        if tokens.width > 1:
            narrowed = narrowed.masked_fill(~allowed(tokens, column).to(logits.device), -torch.inf)
        total = total + F.cross_entropy(
            narrowed.flatten(0, 1), targets[..., column].flatten(), ignore_index=IGNORED, reduction="sum"
        )
    return total, (targets != IGNORED).sum()


def allowed(tokens: Tokens, column: int) -> Tensor:
    """(V,) bool: what may stand in ``column`` of a row of the delay pattern."""
    result = torch.zeros(tokens.vocabulary, dtype=torch.bool)
    result[tokens.first(column) : tokens.first(column) + tokens.sizes[column]] = True
    if column == 0:
        result[tokens.end] = True
    return result
