"""Image files as they come in the world, beside the usual ones."""

import os
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

READABLE = [
    'one_pixel.png',
    'grey.png',
    'bilevel.png',
    'sixteen.png',
    'sixteen_grey.png',
    'sixteen.tif',
    'alpha.png',
    'grey_alpha.png',
    'palette.png',
    'cmyk.jpg',
    'exif.jpg',
    'animated.webp',
    'animated.png',
    'pages.tif',
    'ünï cödé 图.png',
    ' a space & %20.png',
]
# Whether they can be read depends on the release of OpenCV.
PERHAPS = ['animated.gif', 'truncated.jpg', 'truncated.png', 'float.tif']
BROKEN = ['header.jpg', 'empty.png', 'text.jpg', 'folder.png', 'missing.png']
BROKEN += ['huge.png']  # says that it has 100,000 x 100,000 pixels
LONG = ['wide.png', 'high.png']  # 20,000 x 50
SHAPE = (60, 80)


def make_odd_images(root):
    """Write all of them into a folder, and return it."""
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)

    def pixels(*shape, high=256, dtype=np.uint8):
        return rng.integers(0, high, shape, dtype)

    picture = pixels(*SHAPE, 3)
    image = Image.fromarray(picture)
    Image.fromarray(picture[:1, :1]).save(root / 'one_pixel.png')
    image.convert('L').save(root / 'grey.png')
    image.convert('1').save(root / 'bilevel.png')
    for name, shape in (
        ('sixteen.png', (*SHAPE, 3)),
        ('sixteen_grey.png', SHAPE),
        ('sixteen.tif', (*SHAPE, 3)),
    ):
        sixteen = pixels(*shape, high=65536, dtype=np.uint16)
        cv2.imwrite(str(root / name), sixteen)
    cv2.imwrite(str(root / 'float.tif'), picture.astype(np.float32) / 255)
    with_alpha = np.dstack([picture, pixels(*SHAPE)])
    Image.fromarray(with_alpha).save(root / 'alpha.png')
    Image.fromarray(with_alpha).convert('LA').save(root / 'grey_alpha.png')
    image.quantize(16).save(root / 'palette.png', transparency=0)
    image.convert('CMYK').save(root / 'cmyk.jpg')
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(root / 'exif.jpg', exif=exif)
    for suffix in ('jpg', 'png'):
        whole = root / f'whole.{suffix}'
        image.save(whole)
        content = whole.read_bytes()
        (root / f'truncated.{suffix}').write_bytes(
            content[: len(content) // 2]
        )
    (root / 'header.jpg').write_bytes((root / 'whole.jpg').read_bytes()[:30])
    (root / 'empty.png').write_bytes(b'')
    (root / 'text.jpg').write_text('404 not found')
    (root / 'folder.png').mkdir(exist_ok=True)
    (root / 'huge.png').write_bytes(_png(100000, 100000))
    cv2.imwrite(str(root / 'wide.png'), pixels(50, 20000, 3))
    cv2.imwrite(str(root / 'high.png'), pixels(20000, 50, 3))
    frames = [Image.fromarray(pixels(*SHAPE, 3)) for _ in range(3)]
    for name in ('animated.gif', 'animated.webp', 'animated.png', 'pages.tif'):
        frames[0].save(root / name, save_all=True, append_images=frames[1:])
    for name in READABLE[-2:]:
        image.save(root / name)
    return root


def not_utf8(root):
    """Return a file whose name is no text, or None where there is none such.

    Names are bytes on Linux; Python keeps them in surrogates.
    """
    name = os.fsdecode(b'\xff\xfe.png')
    try:
        (root / name).write_bytes((root / 'whole.png').read_bytes())
    except (OSError, UnicodeError):
        return None
    return root / name


def _png(width, height):
    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return (
            struct.pack('>I', len(data))
            + kind
            + data
            + struct.pack('>I', check)
        )

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', header)
        + chunk(b'IDAT', zlib.compress(b'\0' * 100))
        + chunk(b'IEND', b'')
    )
