"""AutoAugment's policy for CIFAR, followed by Cutout as in that paper.

mmpretrain only has the policy for ImageNet. The pairs of operations, their
probabilities and levels (0 to 9) are those that Cubuk et al. (2019) list.
"""


def operation(name, prob, level=0):
    """One operation of mmpretrain at a level of AutoAugment."""
    part = level / 9
    shear = dict(type='Shear', magnitude=0.3 * part)
    translate = dict(type='Translate', magnitude=150 / 331 * part)
    known = dict(
        ShearY=dict(shear, direction='vertical'),
        TranslateX=dict(translate, direction='horizontal'),
        TranslateY=dict(translate, direction='vertical'),
        Rotate=dict(type='Rotate', angle=30 * part),
        Color=dict(type='ColorTransform', magnitude=0.9 * part),
        Posterize=dict(type='Posterize', bits=8 - round(4 * part)),
        Solarize=dict(type='Solarize', thr=256 * (1 - part)),
    )
    for enhanced in ('Contrast', 'Brightness', 'Sharpness'):
        known[enhanced] = dict(type=enhanced, magnitude=0.9 * part)
    return dict(known.get(name, dict(type=name)), prob=prob)


cifar_policies = [
    [operation('Invert', 0.1), operation('Contrast', 0.2, 6)],
    [operation('Rotate', 0.7, 2), operation('TranslateX', 0.3, 9)],
    [operation('Sharpness', 0.8, 1), operation('Sharpness', 0.9, 3)],
    [operation('ShearY', 0.5, 8), operation('TranslateY', 0.7, 9)],
    [operation('AutoContrast', 0.5), operation('Equalize', 0.9)],
    [operation('ShearY', 0.2, 7), operation('Posterize', 0.3, 7)],
    [operation('Color', 0.4, 3), operation('Brightness', 0.6, 7)],
    [operation('Sharpness', 0.3, 9), operation('Brightness', 0.7, 9)],
    [operation('Equalize', 0.6), operation('Equalize', 0.5)],
    [operation('Contrast', 0.6, 7), operation('Sharpness', 0.6, 5)],
    [operation('Color', 0.7, 7), operation('TranslateX', 0.5, 8)],
    [operation('Equalize', 0.3), operation('AutoContrast', 0.4)],
    [operation('TranslateY', 0.4, 3), operation('Sharpness', 0.2, 6)],
    [operation('Brightness', 0.9, 6), operation('Color', 0.2, 8)],
    [operation('Solarize', 0.5, 2), operation('Invert', 0.0)],
    [operation('Equalize', 0.2), operation('AutoContrast', 0.6)],
    [operation('Equalize', 0.2), operation('Equalize', 0.6)],
    [operation('Color', 0.9, 9), operation('Equalize', 0.6)],
    [operation('AutoContrast', 0.8), operation('Solarize', 0.2, 8)],
    [operation('Brightness', 0.1, 3), operation('Color', 0.7, 0)],
    [operation('Solarize', 0.4, 5), operation('AutoContrast', 0.9)],
    [operation('TranslateY', 0.9, 9), operation('TranslateY', 0.7, 9)],
    [operation('AutoContrast', 0.9), operation('Solarize', 0.8, 3)],
    [operation('Equalize', 0.8), operation('Invert', 0.1)],
    [operation('TranslateY', 0.7, 9), operation('AutoContrast', 0.9)],
]
