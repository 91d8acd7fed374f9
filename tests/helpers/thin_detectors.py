"""Detectors of the same layers, each of an eighth of the channels."""

BY = 8


def thin(model):
    """Divide the channels of a detector's config, in place.

    A VGG has no setting of its channels: it gets the fewest layers instead.
    """
    backbone = model.backbone
    if 'VGG' in backbone.type or 'VGG' in backbone.get('wraps', ''):
        backbone.depth = 11
    else:
        backbone.base_channels = 64 // BY
        backbone.stem_channels = 64 // BY
        model.neck.in_channels = [c // BY for c in model.neck.in_channels]
    model.neck.out_channels //= BY
    roi_head = model.get('roi_head', {})
    for part in [
        *(model.get(name) for name in ('rpn_head', 'bbox_head')),
        *(value for name, value in roi_head.items() if 'head' in name),
        *(value for name, value in roi_head.items() if 'extractor' in name),
    ]:
        for name in _CHANNELS.intersection(part or ()):
            part[name] //= BY


_CHANNELS = {
    'in_channels',
    'feat_channels',
    'fc_out_channels',
    'conv_out_channels',
    'out_channels',
}

# Sizes inside of the transformers, and the small ones that they get.
_SMALL = {256: 32, 128: 16, 1024: 32, 2048: 32}


def thin_transformers(settings):
    """Make the transformers of a head small, in place."""
    if isinstance(settings, (list, tuple)):
        for item in settings:
            thin_transformers(item)
    elif isinstance(settings, dict):
        for key, value in settings.items():
            if key in ('embed_dims', 'num_feats', 'feedforward_channels'):
                settings[key] = _SMALL.get(value, value)
            elif key == 'num_layers':
                settings[key] = min(value, 3)
            else:
                thin_transformers(value)
