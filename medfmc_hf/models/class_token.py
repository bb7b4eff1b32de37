"""Spares the last block work that nobody reads: where the logits come from the class token alone, the others skip its MLP."""

from dataclasses import replace

import torch
from torch import nn

from .backbones import origin
from .structure import has_class_token, inside_attention, inside_mlp, structure_of


@torch.no_grad()
def spare_last_block(model: nn.Module) -> bool:
    """Let only the class token through what follows the attention of the last block, if the logits stay what they are.

    After that attention every layer treats each token by itself, so where the head reads the class token alone, the other tokens'
    way through the output projection and the MLP changes nothing: some 6 % of a ViT of 12 blocks. Their hidden states after the last
    block are then not those of the pretrained model. Whether a head reads other tokens (a mean of patches, an attention
    pool) is its author's choice, so it is tried on a random image.

    Args:
        model: a classifier without adapters; changed in place. Adapters may be put in and taken out afterwards.

    Returns:
        Whether it was done.
    """
    structure = structure_of(model)
    if structure.family != "tokens" or not has_class_token(model):
        return False
    last = replace(structure, blocks=structure.blocks[-1:])
    names = [*inside_attention(model, last, ("output",)), *inside_mlp(model, last)]
    device, side = next(model.parameters()).device, origin(model).image_size
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    training = model.training
    model.eval()
    whole = model(pixel_values=image).logits
    hooks = [model.get_submodule(name).register_forward_pre_hook(_class_token_alone) for name in names]
    try:
        exact = torch.allclose(whole, model(pixel_values=image).logits, rtol=1e-4, atol=1e-5)
    except (RuntimeError, ValueError, IndexError):  # a block that is put together in another way
        exact = False
    if not exact:
        for hook in hooks:
            hook.remove()
    model.train(training)
    return exact


def _class_token_alone(layer: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    """(B, tokens, dim) to (B, 1, dim): the residual connection spreads the result over all tokens again."""
    return (inputs[0][:, :1], *inputs[1:])
