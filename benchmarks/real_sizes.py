"""Published models at their real sizes, as factories for `fxremat estimate`. Nothing is downloaded.

python -m fxremat estimate benchmarks.real_sizes:llama3_8b --device h100 --dtype bf16

Each returns a module that has its loss inside, and inputs. They are made on the `meta` device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Step(nn.Module):
    """A model with its loss inside."""

    def __init__(self, model: nn.Module, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.loss(self.model, *inputs)


Made = tuple[nn.Module, tuple[Tensor, ...]]


def language_loss(model: nn.Module, ids: Tensor) -> Tensor:
    return model(input_ids=ids, labels=ids, use_cache=False).loss


def gpt2_xl(batch_size: int = 8) -> Made:
    """48 layers of width 1,600, dropout 0.1; 1,024 tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_embd=1600, n_layer=48, n_head=25, use_cache=False)
    model = GPT2LMHeadModel(config)
    model.loss_type = "ForCausalLM"  # unknown, which is said and breaks the graph
    return Step(model, language_loss), (torch.zeros(batch_size, 1024, dtype=torch.long),)


def llama3_8b(batch_size: int = 1) -> Made:
    """32 layers of width 4,096, grouped heads; 8,192 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=14336,
        vocab_size=128256,
        max_position_embeddings=8192,
        rope_theta=500000.0,
        use_cache=False,
    )
    ids = torch.zeros(batch_size, 8192, dtype=torch.long)
    return Step(LlamaForCausalLM(config), language_loss), (ids,)


def diffusion_loss(model: nn.Module, *inputs: Tensor) -> Tensor:
    noisy, times, text, noise = inputs
    made = model(noisy, times, encoder_hidden_states=text, return_dict=False)[0]
    return nn.functional.mse_loss(made, noise)


def stable_diffusion(batch_size: int = 16) -> Made:
    """The U-Net of Stable Diffusion 1.5: images of 512 x 512, text of 77 tokens."""
    from diffusers import UNet2DConditionModel

    model: Any = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    latents = torch.zeros(batch_size, 4, 64, 64)
    times = torch.zeros(batch_size, dtype=torch.long)
    text = torch.zeros(batch_size, 77, 768)
    return Step(model, diffusion_loss), (latents, times, text, torch.zeros_like(latents))


def image_loss(model: nn.Module, pixels: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(pixel_values=pixels).logits, targets)


def vit_h(batch_size: int = 64) -> Made:
    """ViT-H/14: 32 layers of width 1,280; images of 224 x 224."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=1280,
        num_hidden_layers=32,
        num_attention_heads=16,
        intermediate_size=5120,
        patch_size=14,
        image_size=224,
        num_labels=1000,
    )
    pixels = torch.zeros(batch_size, 3, 224, 224)
    targets = torch.zeros(batch_size, dtype=torch.long)
    return Step(ViTForImageClassification(config), image_loss), (pixels, targets)


FACTORIES = (gpt2_xl, llama3_8b, stable_diffusion, vit_h)
