"""Damage to files, in every region and of every kind, the same each time."""

import random

# What happens to a file between two machines, or to the disk that it is on.
KINDS = (
    *('bit', 'byte', 'cut', 'insert', 'delete', 'swap', 'zeros', 'repeat'),
    *('splice', 'several'),
)


def damaged(whole, other, number, seed=0):
    """Yield damaged copies of a file, all regions being hit as often.

    Args:
        whole (bytes): The file.
        other (bytes): Another file of the same kind, of which blocks get in.
        number (int): Copies.
        seed (int): Of what is drawn.

    Yields:
        tuple: Number and kind of the damage, and the copy.
    """
    draw = random.Random(seed)
    for i in range(number):
        kind = KINDS[i % len(KINDS)]
        # One in each of equal parts of the file, for each kind.
        part = (i // len(KINDS) + draw.random()) * len(KINDS) / number
        copy = damage(whole, kind, part, draw, other)
        if copy not in (whole, other):
            yield f'{i}: {kind}', copy


def damage(whole, kind, part, draw, other):
    """Damage a file at a share of its length."""
    at = min(int(part * len(whole)), len(whole) - 1)
    size = draw.choice((1, 2, 7, 64, 500))
    before, after = whole[:at], whole[at:]
    if kind == 'bit':
        return (
            before + bytes([after[0] ^ (1 << draw.randrange(8))]) + after[1:]
        )
    if kind == 'byte':
        return before + draw.randbytes(1) + after[1:]
    if kind == 'cut':
        return before
    if kind == 'insert':
        return before + draw.randbytes(size) + after
    if kind == 'delete':
        return before + after[size:]
    if kind == 'swap':  # of two blocks of one length, the later one first
        size = min(size, len(after) // 2)
        gap = draw.randrange(len(after) - 2 * size + 1) if after else 0
        far = size + gap
        return (
            before
            + after[far : far + size]
            + after[size:far]
            + after[:size]
            + after[far + size :]
        )
    if kind == 'zeros':
        return before + bytes(len(after[:size])) + after[size:]
    if kind == 'repeat':
        return before + after[:size] + after
    if kind == 'splice':
        return before + other[at : at + size] + after[size:]
    for _ in range(draw.randrange(2, 6)):
        if whole:
            again = draw.choice(KINDS[:-1])
            whole = damage(whole, again, draw.random(), draw, other)
    return whole
