"Files with a few wrong bytes, for the tests that open many of them."


def damaged_bytes(data, rng):
    "A copy with some bytes changed, cut out, put in, or cut off."
    data = bytearray(data)
    at = rng.randrange(len(data)) if rng.random() < .5 else rng.randrange(min(len(data), 200))
    kind = rng.randrange(5)
    if kind == 0:
        data[at] = rng.randrange(256)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        del data[at:at + rng.randrange(1, 40)]
    elif kind == 3:
        data[at:at] = rng.randbytes(rng.randrange(1, 40))
    else:
        for _ in range(20):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)
