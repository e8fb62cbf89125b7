"""Weights files as Darknet writes them, made by a second hand: from a cfg text alone, and not by
the library that is to read them."""
import numpy as np

def cfg(classes, size=416):
    "The text of yolov3.cfg, without what only training needs."
    text, ends = [f'[net]\nwidth={size}\nheight={size}\nchannels=3\n'], []
    def conv(filters, ks, stride=1):
        text.append(
            f'[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize={ks}\nstride={stride}\npad=1\nactivation=leaky\n')
    conv(32, 3)
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        conv(filters, 3, 2)
        for _ in range(blocks):
            conv(filters//2, 1)
            conv(filters, 3)
            text.append('[shortcut]\nfrom=-3\nactivation=linear\n')
        ends.append(len(text) - 2)
    for filters, mask, source in ((512, '6,7,8', None), (256, '3,4,5', ends[-2]),
                                  (128, '0,1,2', ends[-3])):
        if source:
            text.append('[route]\nlayers=-4\n')
            conv(filters, 1)
            text += ['[upsample]\nstride=2\n', f'[route]\nlayers=-1,{source}\n']
        for _ in range(3):
            conv(filters, 1)
            conv(2*filters, 3)
        text.append(
            f'[convolutional]\nsize=1\nstride=1\npad=1\nfilters={3*(5 + classes)}\n'
            'activation=linear\n')
        text.append(f'[yolo]\nmask={mask}\nanchors=10,13, 16,30, 33,23, 30,61, 62,45, 59,119, '
                    f'116,90, 156,198, 373,326\nclasses={classes}\nnum=9\n')
    return '\n'.join(text)

def write(folder, classes, seed=0):
    """A cfg and random weights for it; batch norms as training leaves them. The files, and the
    names of the layers before each [yolo]."""
    rng, channels, before = np.random.default_rng(seed), [], []
    sections = [dict([('kind', s.split(']')[0])]
                     + [line.split('=', 1) for line in s.split('\n')[1:] if line])
                for s in cfg(classes).split('[')[1:]]
    with open(folder/'net.weights', 'wb') as f:
        f.write(np.array([0, 2, 0], '<i4').tobytes() + np.array([32013312], '<i8').tobytes())
        def put(values):
            f.write(values.astype('<f4').tobytes())
        for i, s in enumerate(sections[1:]):
            if s['kind'] == 'convolutional':
                ni, nf, ks = channels[-1] if channels else 3, int(s['filters']), int(s['size'])
                inner = i + 2 < len(sections) and sections[i + 2]['kind'] == 'shortcut'
                if 'batch_normalize' in s:
                    scale = .3 if inner else 1.   # what is added to a shortcut is small
                    put(rng.normal(0, .1, nf))
                    put(scale*rng.uniform(.5, 1.5, nf))
                    put(rng.normal(0, .1, nf))
                    put(rng.uniform(.5, 1.5, nf))
                else:
                    put(rng.normal(0, 1, nf))
                put(rng.standard_normal((nf, ni, ks, ks), np.float32)*(1.5/(ni*ks*ks))**.5)
                channels.append(nf)
            elif s['kind'] == 'route':
                layers = [int(n) for n in s['layers'].split(',')]
                channels.append(sum(channels[n] for n in layers))
            else:
                if s['kind'] == 'yolo':
                    before.append(f'conv_{i - 1}')
                channels.append(channels[-1])
    (folder/'net.cfg').write_text(cfg(classes))
    return folder/'net.cfg', folder/'net.weights', before
