"""Heads of small detectors."""


def retina_head(**settings):
    """Settings of a head for one map of stride 32, of 128 channels."""
    anchors = dict(
        type='AnchorGenerator',
        octave_base_scale=4,
        scales_per_octave=1,
        ratios=[1.0],
        strides=[32],
    )
    head = dict(
        type='RetinaHead',
        num_classes=2,
        in_channels=128,
        feat_channels=16,
        stacked_convs=1,
        anchor_generator=anchors,
    )
    return dict(head, **settings)
