"""Slow references for the tuners, written from the papers: attention head by head and window by window, without any tuner.

An `edit` is what a bottleneck adapter does: (block number, "attention" or "mlp", input, output) -> output.
"""

import math

import torch
import torch.nn.functional as F


def no_edit(block, place, inputs, outputs):
    return outputs


# Per architecture: the token model, its blocks, their two norms, and logits from the tokens after the last block.
def _vit(m):
    return m.vit.embeddings, m.vit.layers, ("layernorm_before", "layernorm_after"), lambda t: m.classifier(m.vit.layernorm(t)[:, 0])


def _deit(m):
    return m.deit.embeddings, m.deit.layers, ("layernorm_before", "layernorm_after"), lambda t: m.classifier(m.deit.layernorm(t)[:, 0])


def _deit_teacher(m):
    def read(t):
        t = m.deit.layernorm(t)
        return (m.cls_classifier(t[:, 0]) + m.distillation_classifier(t[:, 1])) / 2

    return m.deit.embeddings, m.deit.layers, ("layernorm_before", "layernorm_after"), read


def _dino(m, backbone, registers):
    def read(t):
        t = backbone.layernorm(t)
        return m.classifier(torch.cat([t[:, 0], t[:, 1 + registers :].mean(dim=1)], dim=1))

    return backbone.embeddings, backbone.encoder.layer, ("norm1", "norm2"), read


def _clip(backbone, read):
    return lambda x: backbone.pre_layrnorm(backbone.embeddings(x)), backbone.encoder.layers, ("layer_norm1", "layer_norm2"), read


def parts(name, m):
    if name == "vit":
        return _vit(m)
    if name == "deit":
        return _deit(m)
    if name == "deit teacher":
        return _deit_teacher(m)
    if name == "dinov2":
        return _dino(m, m.dinov2, 0)
    if name == "dinov2 registers":
        return _dino(m, m.dinov2_with_registers, 3)
    if name == "dinov3":
        return m.tower.embeddings, m.tower.model.layer, ("norm1", "norm2"), lambda t: m.classifier(m.tower.norm(t)[:, 0])
    if name == "clip vision":
        return _clip(m.tower, lambda t: m.classifier(m.tower.post_layernorm(t[:, 0])))
    if name == "clip":
        return _clip(m.vision_model, lambda t: m.classifier(t[:, 1:].mean(dim=1)))
    if name == "siglip vision":
        norms = ("layer_norm1", "layer_norm2")
        return m.tower.embeddings, m.tower.encoder.layers, norms, lambda t: m.classifier(m.tower.head(m.tower.post_layernorm(t)))
    assert name == "beit"
    return m.beit.embeddings, m.beit.layers, ("layernorm_before", "layernorm_after"), lambda t: m.classifier(m.beit.pooler(t))


def tokens_forward(name, m, x, prompts=None, deep=True, edit=no_edit):
    """Logits of a plain transformer with prompts: a list of (P, width) for each block, or for shallow of one.

    Prompts come after the class token and are removed before the final norm.
    """
    embed, blocks, norms, read = parts(name, m)
    tokens = embed(x)
    tokens = tokens[0] if isinstance(tokens, tuple) else tokens
    patches = (x.shape[-1] // 4) ** 2
    start = 0 if name.startswith("siglip") else 1
    rope = m.tower.rope_embeddings(x) if name == "dinov3" else None
    count = 0
    for i, block in enumerate(blocks):
        if prompts is not None and (deep or i == 0):
            own = prompts[i].expand(len(x), -1, -1)
            tokens, count = torch.cat([tokens[:, :start], own, tokens[:, start:]], dim=1), own.shape[1]
        bias = torch.zeros(2, tokens.shape[1], tokens.shape[1])
        if name == "beit":
            own_bias = block.relative_position_bias((4, 4))[0]
            keep = [j for j in range(tokens.shape[1]) if not start <= j < start + count]
            for a, row in enumerate(keep):
                for b, column in enumerate(keep):
                    bias[:, row, column] = own_bias[:, a, b]
        tokens = _block(i, block, norms, tokens, bias, rope, patches, edit)
        if deep and count:
            tokens, count = torch.cat([tokens[:, :start], tokens[:, start + count :]], dim=1), 0
    return read(torch.cat([tokens[:, :start], tokens[:, start + count :]], dim=1))


def _block(i, block, norms, tokens, bias, rope, patches, edit):
    attention = getattr(block, "attention", None) or block.self_attn
    h = getattr(block, norms[0])(tokens)
    out = edit(i, "attention", h, _heads(attention, h, bias, rope, patches))
    tokens = tokens + _scale(block, 1) * out
    h = getattr(block, norms[1])(tokens)
    return tokens + _scale(block, 2) * edit(i, "mlp", h, block.mlp(h))


def _scale(block, n):
    if hasattr(block, f"lambda_{n}"):
        return getattr(block, f"lambda_{n}")
    return getattr(block, f"layer_scale{n}").lambda1 if hasattr(block, f"layer_scale{n}") else 1.0


def _heads(attention, h, bias, rope, patches):
    query, key, value = attention.q_proj(h), attention.k_proj(h), attention.v_proj(h)
    width = query.shape[-1] // 2
    outputs = []
    for head in range(2):
        q, k, v = (part[..., head * width : (head + 1) * width] for part in (query, key, value))
        if rope is not None:
            q, k = _rotate(q, rope, patches), _rotate(k, rope, patches)
        weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(width) + bias[head], dim=-1)
        outputs.append(weights @ v)
    end = attention.o_proj if hasattr(attention, "o_proj") else attention.out_proj
    return end(torch.cat(outputs, dim=-1))


def _rotate(x, rope, patches):
    """Rotate only the patches, which come last: other tokens have no position."""
    cos, sin = rope
    rest, spots = x[:, :-patches], x[:, -patches:]
    half = spots.shape[-1] // 2
    turned = torch.cat([-spots[..., half:], spots[..., :half]], dim=-1)
    return torch.cat([rest, spots * cos + turned * sin], dim=1)


def swin_forward(m, x, prompts=None, deep=True, pool_prompts=False, edit=no_edit):
    """Logits of Swin or SwinV2, one image and one window at a time. `prompts`: a list of (P, width) for each block, or of one."""
    backbone = m.swin if hasattr(m, "swin") else m.swinv2
    v2 = hasattr(m, "swinv2")
    rows = []
    for image in x:
        patches, (height, width) = backbone.embeddings(image[None])
        patches, own, number = patches[0], None, 0
        for stage in backbone.encoder.layers:
            for block in stage.blocks:
                if prompts is not None and (deep or number == 0):
                    own = prompts[number]
                own, patches = _swin_block(block, own, patches, height, width, v2, number, edit)
                number += 1
            if stage.downsample is not None:
                patches = stage.downsample(patches[None], (height, width))[0]
                if own is not None:
                    merge = stage.downsample
                    fourfold = torch.cat([own] * 4, dim=-1)
                    own = merge.norm(merge.reduction(fourfold)) if v2 else merge.reduction(merge.norm(fourfold))
                height, width = height // 2, width // 2
        tokens = torch.cat([own, patches]) if pool_prompts else patches
        rows.append(backbone.layernorm(tokens).mean(dim=0))
    return m.classifier(torch.stack(rows))


def _swin_block(block, prompts, patches, height, width, v2, number, edit):
    count = 0 if prompts is None else len(prompts)
    tokens = patches if prompts is None else torch.cat([prompts, patches])
    h = tokens if v2 else block.layernorm_before(tokens)
    size, shift = block.window_size, block.shift_size
    out, seen = torch.zeros_like(tokens), 0
    for top in range(0, height, size):
        for left in range(0, width, size):
            cells = [(r, c) for r in range(top, top + size) for c in range(left, left + size)]  # places on the shifted grid
            places = [count + (r + shift) % height * width + (c + shift) % width for r, c in cells]
            inside = torch.cat([h[:count], h[places]])
            bias = torch.zeros(2, len(inside), len(inside))
            for a, (ra, ca) in enumerate(cells):
                for b, (rb, cb) in enumerate(cells):
                    bias[:, count + a, count + b] = _swin_bias(block.attention, ra - rb, ca - cb, size, v2)
                    if shift and (_region(ra, height, size, shift), _region(ca, width, size, shift)) != (
                        _region(rb, height, size, shift),
                        _region(cb, width, size, shift),
                    ):
                        bias[:, count + a, count + b] -= 200 if v2 else 100
            result = _swin_heads(block.attention, inside, bias, v2)
            out[places] = result[count:]
            out[:count] += result[:count]
            seen += 1
    out[:count] /= seen
    out = edit(number, "attention", h, out)
    if v2:
        tokens = tokens + block.layernorm_before(out)
        mlp = edit(number, "mlp", tokens, block.output(block.intermediate(tokens)))
        tokens = tokens + block.layernorm_after(mlp)
    else:
        tokens = tokens + out
        h = block.layernorm_after(tokens)
        tokens = tokens + edit(number, "mlp", h, block.mlp(h))
    return (tokens[:count] if count else None), tokens[count:]


def _region(place, length, size, shift):
    return (place >= length - size) + (place >= length - shift)


def _swin_bias(attention, dr, dc, size, v2):
    row = (dr + size - 1) * (2 * size - 1) + dc + size - 1
    if not v2:
        return attention.relative_position_bias.relative_position_bias_table[row]
    own = attention.self
    return 16 * torch.sigmoid(own.continuous_position_bias_mlp(own.relative_coords_table).view(-1, 2)[row])


def _swin_heads(attention, h, bias, v2):
    names = ("query", "key", "value") if v2 else ("q_proj", "k_proj", "v_proj")
    query, key, value = (getattr(attention.self if v2 else attention, name)(h) for name in names)
    width = query.shape[-1] // 2
    outputs = []
    for head in range(2):
        q, k, v = (part[:, head * width : (head + 1) * width] for part in (query, key, value))
        if v2:
            scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).T * attention.self.logit_scale[head].clamp(max=math.log(100)).exp()
        else:
            scores = q @ k.T / math.sqrt(width)
        outputs.append(torch.softmax(scores + bias[head], dim=-1) @ v)
    mixed = torch.cat(outputs, dim=-1)
    return attention.output(mixed, h) if v2 else attention.o_proj(mixed)
