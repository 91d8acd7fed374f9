"""Small transformers of the three projects, one of every kind."""

import torch
from torch import nn

VIT = dict(embed_dims=64, num_layers=2, num_heads=4, feedforward_channels=96)
SWIN = dict(embed_dims=32, depths=[2, 2], num_heads=[2, 4])
# By project and class: arguments, and the shape of an input.
TINY = {
    'mmpretrain.VisionTransformer': (dict(arch=VIT), (1, 3, 48, 48)),
    'mmpretrain.DistilledVisionTransformer': (
        dict(arch=VIT),
        (1, 3, 48, 48),
    ),
    'mmpretrain.DeiT3': (dict(arch=VIT), (1, 3, 48, 48)),
    'mmpretrain.BEiTViT': (dict(arch=VIT, img_size=48), (1, 3, 48, 48)),
    'mmpretrain.ViTEVA02': (dict(arch=VIT), (1, 3, 48, 48)),
    'mmpretrain.RevVisionTransformer': (
        dict(arch=VIT, no_custom_backward=True),
        (1, 3, 48, 48),
    ),
    'mmpretrain.ViTSAM': (
        dict(
            arch=dict(VIT, global_attn_indexes=[1]),
            window_size=2,
            out_channels=0,
            use_rel_pos=True,
        ),
        (1, 3, 48, 48),
    ),
    'mmpretrain.SwinTransformer': (
        dict(arch=SWIN, window_size=4, out_indices=(0, 1)),
        (1, 3, 48, 48),
    ),
    'mmpretrain.SwinTransformerV2': (
        dict(
            arch=dict(SWIN, extra_norm_every_n_blocks=0),
            window_size=4,
            out_indices=(0, 1),
        ),
        (1, 3, 48, 48),
    ),
    'mmpretrain.MViT': (
        dict(
            arch=dict(
                embed_dims=32, num_layers=3, num_heads=2, downscale_indices=[1]
            )
        ),
        (1, 3, 64, 64),
    ),
    'mmpretrain.T2T_ViT': (
        dict(
            num_layers=2,
            embed_dims=64,
            t2t_cfg=dict(token_dims=32, use_performer=False),
            layer_cfgs=dict(num_heads=4, feedforward_channels=128),
        ),
        (1, 3, 48, 48),
    ),
    'mmpretrain.TNT': (
        dict(
            arch=dict(
                embed_dims_outer=64,
                embed_dims_inner=16,
                num_layers=2,
                num_heads_outer=4,
                num_heads_inner=2,
            ),
            img_size=48,
        ),
        (1, 3, 48, 48),
    ),
    'mmpretrain.XCiT': (
        dict(
            patch_size=16,
            embed_dims=64,
            depth=2,
            num_heads=4,
            cls_attn_layers=1,
            mlp_ratio=2,
            layer_scale_init_value=1.0,
        ),
        (1, 3, 48, 48),
    ),
    'mmpretrain.DaViT': (
        dict(
            arch=dict(
                embed_dims=32, depths=[1, 1, 1, 1], num_heads=[2, 2, 4, 4]
            ),
            window_size=4,
        ),
        (1, 3, 128, 128),
    ),
    'mmpretrain.MixMIMTransformer': (
        dict(
            arch=dict(embed_dims=32, depths=[1, 1], num_heads=[2, 4]),
            window_size=[4, 4],
            img_size=32,
        ),
        (1, 3, 32, 32),
    ),
    'mmpretrain.MlpMixer': (
        dict(
            arch=dict(
                embed_dims=64,
                num_layers=2,
                tokens_mlp_dims=32,
                channels_mlp_dims=96,
            ),
            img_size=48,
        ),
        (1, 3, 48, 48),
    ),
    'mmpretrain.MobileViT': (
        dict(
            arch=[
                ['mobilenetv2', 16, 1, 1, 2],
                ['mobilenetv2', 24, 2, 2, 2],
                ['mobilevit', 32, 2, 64, 128, 2, 2],
            ],
            last_exp_factor=2,
            out_indices=(2,),
        ),
        (1, 3, 64, 64),
    ),
    'mmdet.SwinTransformer': (
        dict(
            embed_dims=32,
            depths=(1, 2),
            num_heads=(2, 4),
            strides=(4, 2),
            out_indices=(0, 1),
            window_size=4,
        ),
        (1, 3, 48, 56),
    ),
    'mmdet.PyramidVisionTransformerV2': (
        dict(
            embed_dims=16,
            num_layers=[1, 1, 1, 1],
            num_heads=[1, 2, 4, 4],
            mlp_ratios=[2, 2, 2, 2],
        ),
        (1, 3, 64, 96),
    ),
    'mmaction.SwinTransformer3D': (
        dict(arch=SWIN, window_size=(2, 4, 4), out_indices=(1,)),
        (1, 3, 4, 32, 32),
    ),
    'mmaction.MViT': (
        dict(
            arch=dict(
                embed_dims=32, num_layers=3, num_heads=2, downscale_indices=[1]
            ),
            spatial_size=32,
            temporal_size=8,
        ),
        (1, 3, 8, 32, 32),
    ),
    'mmaction.TimeSformer': (
        dict(
            num_frames=4,
            img_size=32,
            patch_size=16,
            embed_dims=64,
            num_heads=4,
            num_transformer_layers=2,
        ),
        (1, 3, 4, 32, 32),
    ),
    'mmaction.UniFormer': (
        dict(depth=[1, 1, 1, 1], embed_dim=[32, 32, 64, 64], head_dim=16),
        (1, 3, 8, 32, 32),
    ),
    'mmaction.VisionTransformer': (
        dict(
            img_size=32,
            patch_size=16,
            num_frames=8,
            embed_dims=64,
            depth=2,
            num_heads=4,
            mlp_ratio=2,
        ),
        (1, 3, 8, 32, 32),
    ),
}


def settings_of(project):
    """Settings of those of one project, by the name of the class."""
    return {
        name.partition('.')[2]: settings
        for name, (settings, _) in TINY.items()
        if name.startswith(f'{project}.')
    }


_COMPUTED = ('relative_coords_table', 'rope')  # buffers, from sizes


def randomise(net: nn.Module) -> nn.Module:
    """Numbers that differ from each other, where networks start equal."""
    named = (*net.named_parameters(), *net.named_buffers())
    for name, tensor in named:
        computed = any(part in name for part in _COMPUTED)
        if computed or not tensor.is_floating_point():
            continue
        if tensor.dim() > 1:
            std = max(tensor[0].numel(), 2) ** -0.5
            nn.init.normal_(tensor, 0, std)
        elif tensor.dim():
            nn.init.uniform_(tensor, 0.5, 1.5)
    return net


def single_inputs(net: nn.Module) -> None:
    """Let layers take what stock code makes in single precision."""
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d, nn.LayerNorm)):
            layer.register_forward_pre_hook(cast_inputs)


def cast_inputs(layer, args):
    return tuple(x.to(layer.weight.dtype) for x in args)


def tensors(outputs):
    """The tensors that a network returns."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for part in outputs for tensor in tensors(part)]


def loss_of(outputs):
    """A scalar that each number of all outputs has another part in."""
    losses = []
    for tensor in tensors(outputs):
        part = torch.arange(tensor.numel(), dtype=tensor.dtype).cos()
        losses.append((tensor.flatten() * part).sum())
    return sum(losses)
