"Own images in any layout: the same boxes from each, and one sentence for what cannot be read."
import json
import os
import random
import re
import shutil
from collections import Counter
from pathlib import Path
import numpy as np
import pytest
import torch
import yaml
from PIL import Image, ImageDraw
from yolov3_nb.data import VOCDataset, find_faults
from yolov3_nb.files import InputError
from yolov3_nb.formats import (Files, clip_box, deal, fingerprint, from_folder, import_folder,
                               look_alikes, split_of, turn_box)

NAMES = ('key', 'marker', 'pencil')
COLORS = ((255, 170, 0), (0, 200, 90), (90, 120, 255))
SPLITS = dict(train=range(0, 12), val=range(12, 16), test=range(16, 20))

# --- a small drawn set: (stem, size, [(label, x1, y1, x2, y2, difficult)]), edges from 0

def draw(n=20, seed=0):
    rng, out = random.Random(seed), []
    for i in range(n):
        w, h = rng.choice(((96, 64), (64, 96), (80, 80)))
        objects = []
        for _ in range(0 if i % 7 == 6 else rng.randint(1, 3)):
            x, y = rng.randrange(0, w - 24), rng.randrange(0, h - 24)
            objects.append((rng.randrange(3), x, y, x + rng.randint(8, 24), y + rng.randint(8, 24),
                            rng.random() < .2))
        out.append((f'img {i:02}', (h, w), objects))
    return out

SET = draw()

def picture(item, seed=0):
    "Noise, so that no two images look alike, with the objects as plain rectangles."
    stem, (h, w), objects = item
    noise = np.random.default_rng((seed, int(stem[-2:])))
    im = Image.fromarray(noise.integers(0, 120, (h // 8, w // 8, 3), dtype=np.uint8))
    im = im.resize((w, h), Image.Resampling.BICUBIC)
    for label, x1, y1, x2, y2, _ in objects:
        ImageDraw.Draw(im).rectangle((x1, y1, x2 - 1, y2 - 1), fill=COLORS[label])
    return im

def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Image.Image):
        content.save(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content, encoding='utf-8')

def xml(item, file_name=None):
    stem, (h, w), objects = item
    said = ''.join(
        f'<object><name>{NAMES[c]}</name><difficult>{d:d}</difficult><bndbox><xmin>{x1 + 1}</xmin>'
        f'<ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>'
        for c, x1, y1, x2, y2, d in objects)
    return (f'<annotation><filename>{file_name or stem + ".png"}</filename><size><width>{w}</width>'
            f'<height>{h}</height><depth>3</depth></size>{said}</annotation>')

def txt(item):
    _, (h, w), objects = item
    rows = ((c, (x1 + x2)/2/w, (y1 + y2)/2/h, (x2 - x1)/w, (y2 - y1)/h)
            for c, x1, y1, x2, y2, _ in objects)
    return ''.join('{} {:.6f} {:.6f} {:.6f} {:.6f}\n'.format(*row) for row in rows)

def coco(items, first=1, prefix='', roboflow=False):
    images = [dict(id=i, file_name=f'{prefix}{stem}.png', height=h, width=w)
              for i, (stem, (h, w), _) in enumerate(items)]
    rows = [dict(image_id=i, category_id=c + first, bbox=[x1, y1, x2 - x1, y2 - y1], iscrowd=int(d),
                 area=(x2 - x1)*(y2 - y1), segmentation=[])
            for i, (*_, objects) in enumerate(items) for c, x1, y1, x2, y2, d in objects]
    categories = [dict(id=c + first, name=n, supercategory='things') for c, n in enumerate(NAMES)]
    if roboflow:
        categories.insert(0, dict(id=first - 1, name='things', supercategory='none'))
    return dict(images=images, annotations=[r | dict(id=n) for n, r in enumerate(rows)],
                categories=categories)

def voc_flat(root, items=SET):
    for item in items:
        put(root/'images'/f'{item[0]}.png', picture(item))
        put(root/'annotations'/f'{item[0]}.xml', xml(item))

def voc_beside(root, items=SET):
    for item in items:
        put(root/f'{item[0]}.png', picture(item))
        put(root/f'{item[0]}.xml', xml(item))

def voc_devkit(root, items=SET):
    voc = root/'VOCdevkit'/'VOCdesk'
    for item in items:
        put(voc/'JPEGImages'/f'{item[0]}.png', picture(item))
        put(voc/'Annotations'/f'{item[0]}.xml', xml(item))
    for split, numbers in SPLITS.items():
        put(voc/'ImageSets'/'Main'/f'{split}.txt', ''.join(f'{items[i][0]}\n' for i in numbers))

def coco_roboflow(root, items=SET):
    for split, numbers in SPLITS.items():
        folder, mine = root/dict(val='valid').get(split, split), [items[i] for i in numbers]
        put(folder/'_annotations.coco.json', json.dumps(coco(mine, roboflow=True)))
        for item in mine:
            put(folder/f'{item[0]}.png', picture(item))

def coco_one(root, items=SET):
    put(root/'annotations'/'instances_default.json', json.dumps(coco(items)))
    for item in items:
        put(root/'images'/'default'/f'{item[0]}.png', picture(item))

def yolo_roboflow(root, items=SET):
    put(root/'data.yaml', f'train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\n'
                          f'nc: 3\nnames: {list(NAMES)}\n')
    for split, numbers in SPLITS.items():
        folder = root/dict(val='valid').get(split, split)
        for item in (items[i] for i in numbers):
            put(folder/'images'/f'{item[0]}.png', picture(item))
            put(folder/'labels'/f'{item[0]}.txt', txt(item))

def yolo_flat(root, items=SET):
    put(root/'classes.txt', '\n'.join(NAMES) + '\n')
    for item in items:
        put(root/f'{item[0]}.png', picture(item))
        put(root/f'{item[0]}.txt', txt(item))

def yolo_split(root, items=SET):
    put(root/'data.yaml', yaml.safe_dump(dict(path='C:\\me\\desk', train='images\\train',
                                              val='images\\val', names=dict(enumerate(NAMES)))))
    for split in ('train', 'val'):
        for item in (items[i] for i in SPLITS[split]):
            put(root/'images'/split/f'{item[0]}.png', picture(item))
            put(root/'labels'/split/f'{item[0]}.txt', txt(item))

LAYOUTS = dict(voc_flat=voc_flat, voc_beside=voc_beside, voc_devkit=voc_devkit, coco_one=coco_one,
               coco_roboflow=coco_roboflow, yolo_roboflow=yolo_roboflow, yolo_flat=yolo_flat)

def sets(data):
    return {s: d for s in ('train', 'val', 'test') if (d := getattr(data, s)) is not None}

def boxes(data, by='id'):
    "Name of the image -> its sorted (class, box) rows."
    out = {}
    for ds in sets(data).values():
        for i in range(len(ds)):
            a = ds.annotation(i)
            rows = zip(a['labels'].tolist(), a['boxes'].tolist())
            out[Path(ds.image_path(i)).stem] = sorted((ds.classes[c], *b) for c, b in rows)
    return out

TRUE = {stem: sorted((NAMES[c], *map(float, b)) for c, *b, _ in {o[:5] + (0,) for o in objects})
        for stem, _, objects in SET}

def agree(found, true, within):
    assert found.keys() == true.keys()
    for stem, rows in true.items():
        assert [r[0] for r in found[stem]] == [r[0] for r in rows]
        np.testing.assert_allclose([r[1:] for r in found[stem]], [r[1:] for r in rows], atol=within)

def snapshot(root):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(root.rglob('*'))}

def one_sentence(error):
    text = str(error.value)
    assert '\n' not in text and len(text) > 20 and text.rstrip()[-1] in '.)'
    return text

# --- the same set in seven layouts

@pytest.mark.parametrize('layout', LAYOUTS)
def test_each_layout_gives_the_same_boxes(tmp_path, layout):
    LAYOUTS[layout](tmp_path)
    before = snapshot(tmp_path)
    data = from_folder(tmp_path)
    assert set(data.classes) == set(NAMES)
    agree(boxes(data), TRUE, .01 if 'yolo' in layout else 0)
    for ds in sets(data).values():
        img, target = ds[0]
        assert img.dtype == np.uint8 and img.shape[:2] == ds.annotation(0)['size']
        assert target['boxes'].dtype == torch.float32 and target['labels'].dtype == torch.int64
        assert target['image_id'] == ds.ids[0] and target['difficult'].dtype == torch.bool
    assert snapshot(tmp_path) == before
    assert 'near' not in ' '.join(data.notes)

@pytest.mark.parametrize('layout', LAYOUTS)
def test_objects_lie_where_their_boxes_are(tmp_path, layout):
    LAYOUTS[layout](tmp_path)
    data = from_folder(tmp_path, classes=list(NAMES))
    for ds in sets(data).values():
        for img, target in (ds[i] for i in range(len(ds))):
            if len(target['labels']) == 1:
                x1, y1, x2, y2 = target['boxes'][0].round().int().tolist()
                color = img[y1:y2, x1:x2].reshape(-1, 3).mean(0)
                np.testing.assert_allclose(color, COLORS[target['labels'][0]], atol=1)

@pytest.mark.parametrize('layout', ['voc_devkit', 'coco_roboflow', 'yolo_roboflow'])
def test_splits_that_are_there_are_used(tmp_path, layout):
    LAYOUTS[layout](tmp_path)
    data = from_folder(tmp_path)
    for split, numbers in SPLITS.items():
        assert sets(data)[split].ids == [SET[i][0] for i in numbers]
    assert data.how == 'as in the folder'

def test_difficult_objects(tmp_path):
    true = sum(o[5] for _, _, objects in SET for o in objects)
    for layout in (voc_flat, coco_roboflow):
        layout(tmp_path/layout.__name__)
        data = from_folder(tmp_path/layout.__name__)
        found = sum(int(d.annotation(i)['difficult'].sum()) for d in sets(data).values()
                    for i in range(len(d)))
        assert found == true > 0

@pytest.mark.parametrize('layout', ['voc_flat', 'voc_beside', 'coco_one', 'yolo_flat'])
def test_a_made_split_does_not_hang_on_the_layout(tmp_path, layout):
    voc_flat(tmp_path/'a')
    LAYOUTS[layout](tmp_path/'b')
    a, b = (from_folder(tmp_path/k, classes=NAMES, seed=3) for k in 'ab')
    for split in ('train', 'val', 'test'):
        assert sets(a)[split].ids == sets(b)[split].ids

def test_our_devkit_reads_like_vocdataset(tmp_path):
    voc_devkit(tmp_path, [(s.replace(' ', '_'), *rest) for s, *rest in SET])
    ds, mine = VOCDataset(tmp_path, [('desk', 'train')], NAMES), from_folder(tmp_path, NAMES).train
    assert ds.ids == mine.ids and from_folder(tmp_path).name == 'desk'
    for i in range(len(ds)):
        (img, a), (other, b) = ds[i], mine[i]
        assert (img == other).all()
        for k in ('boxes', 'labels', 'difficult'):
            assert torch.equal(a[k], b[k])

# --- and the same training

def draw_whole(n=20):
    "Objects whose edges are multiples of 4 in images of 64 or 128: exact in six digits of a share."
    out = []
    for stem, (h, w), objects in draw(n, seed=1):
        size = (128 if h > 80 else 64), (128 if w > 80 else 64)
        rows = [(c, *(4*(v//4) for v in (x1, y1)), *(4*(v//4) + 4 for v in (x2, y2)), False)
                for c, x1, y1, x2, y2, _ in objects]
        out.append((stem, size, [(c, x1, y1, min(x2, size[1]), min(y2, size[0]), d)
                                 for c, x1, y1, x2, y2, d in rows
                                 if x1 < size[1] and y1 < size[0]]))
    return out

def test_five_layouts_train_to_the_same_figures(tmp_path, monkeypatch):
    from yolov3_nb import Learner, Recipe
    items = draw_whole()
    names = [stem for stem, *_ in items]
    voc_flat(tmp_path/'split', items)
    made = sets(from_folder(tmp_path/'split'))  # what two layouts get, the others write down
    monkeypatch.setitem(globals(), 'SPLITS', {
        split: [names.index(name) for name in ds.ids] for split, ds in made.items()})
    recipe = Recipe(size=64, width=.0625, epochs=2, batch=4, workers=0, anchors='coco', ema=0.,
                    precision='32-true', accelerator='cpu', images_every=0, progress=False)
    first = None
    for layout in (voc_flat, voc_beside, coco_roboflow, yolo_roboflow, voc_devkit):
        layout(tmp_path/layout.__name__, items)
        data = from_folder(tmp_path/layout.__name__)
        learner = Learner(data, recipe, tmp_path/f'run-{layout.__name__}')
        learner.fit()
        for split in ('train', 'val', 'test'):
            learner.evaluate(split)
        weights = [p.detach().clone() for p in learner.model.parameters()]
        found = boxes(data), {s: d.ids for s, d in sets(data).items()}, learner.figures
        if first is None:
            first, start = found, weights
            assert sum(map(len, found[0].values())) > 20 and found[2]['train']['loss'] > 0
        assert found[0] == first[0], layout  # to the last bit
        assert found[1] == first[1], layout
        assert repr(found[2]) == repr(first[2]), layout
        assert all(torch.equal(a, b) for a, b in zip(weights, start)), layout

# --- import

@pytest.mark.parametrize('given', [str, from_folder])
def test_a_split_that_a_recipe_names_nothing_for_is_left_aside(tmp_path, capsys, given):
    from yolov3_nb import Learner, Recipe
    coco_roboflow(tmp_path)
    recipe = Recipe(val='', test='', size=64, progress=False)
    learner = Learner(given(tmp_path), recipe, tmp_path/'run')
    assert learner.data.val_ds is learner.data.test_ds is None
    assert len(learner.data.train_ds) == len(SPLITS['train'])
    settled = learner.recipe
    assert (settled.patience, settled.checkpoint, settled.val) == (0, 'last', '')
    said = capsys.readouterr().out
    assert f"{len(SPLITS['val'])} val images are left aside: val names none." in said

@pytest.mark.parametrize('layout', LAYOUTS)
def test_import_writes_a_clean_devkit(tmp_path, layout):
    LAYOUTS[layout](tmp_path/'in')
    before = snapshot(tmp_path/'in')
    lines = import_folder(tmp_path/'in', tmp_path/'out', name='my desk', classes=NAMES)
    assert all(isinstance(line, str) for line in lines) and str(tmp_path/'out') in lines[-1]
    assert snapshot(tmp_path/'in') == before
    data, again = from_folder(tmp_path/'in', NAMES), from_folder(tmp_path/'out', NAMES)
    for split, ds in sets(data).items():
        other = VOCDataset(tmp_path/'out', [('my-desk', split)], NAMES)
        assert len(other) == len(ds) == len(sets(again)[split])
        for i in range(len(ds)):
            (img, a), (copy, b) = ds[i], other[i]
            assert (img == copy).all() and torch.equal(a['labels'], b['labels'])
            torch.testing.assert_close(a['boxes'], b['boxes'], atol=1e-3, rtol=0)
    assert {p.name for p in tmp_path.iterdir()} == {'in', 'out'}

def test_import_refuses_to_write_into_what_it_reads(tmp_path):
    voc_flat(tmp_path/'in')
    put(tmp_path/'full'/'x', 'mine')
    before = snapshot(tmp_path)
    for out in ('in', 'in/out', 'full', 'full/x'):
        with pytest.raises(InputError) as e:
            import_folder(tmp_path/'in', tmp_path/out)
        one_sentence(e)
    assert snapshot(tmp_path) == before

def test_import_that_fails_leaves_nothing(tmp_path):
    voc_flat(tmp_path/'in')
    path = tmp_path/'in'/'images'/'img 19.png'
    path.write_bytes(path.read_bytes()[:-200])  # its header is sound, its pixels are cut off
    with pytest.raises(InputError, match='img 19'):
        import_folder(tmp_path/'in', tmp_path/'out')
    assert {p.name for p in tmp_path.iterdir()} == {'in'}
    lines = import_folder(tmp_path/'in', tmp_path/'out', skip_bad=True)
    assert '19 images' in lines[-3]

def test_import_turns_and_keeps_apart(tmp_path):
    im = Image.new('RGB', (96, 64), (40, 40, 60))
    ImageDraw.Draw(im).rectangle((10, 8, 39, 27), fill=COLORS[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path/'in').mkdir()
    im.transpose(Image.Transpose.ROTATE_90).save(tmp_path/'in'/'a b.jpg', exif=exif, quality=95)
    im.save(tmp_path/'in'/'A_b.bmp')
    for stem in ('a b', 'A_b'):
        item = (stem, (64, 96), [(0, 10, 8, 40, 28, False)])
        put(tmp_path/'in'/f'{stem}.xml', xml(item))
    import_folder(tmp_path/'in', tmp_path/'out', name='x', val=0, test=0)
    ds = VOCDataset(tmp_path/'out', [('x', 'train')], ('key',))
    assert sorted(ds.ids) == ['A_b', 'a_b-2']
    for i in range(2):
        img, target = ds[i]
        with Image.open(ds.image_path(i)) as written:
            assert written.getexif().get(0x0112, 1) == 1
        assert target['boxes'].tolist() == [[10, 8, 40, 28]]
        np.testing.assert_allclose(img[12:24, 14:36].reshape(-1, 3).mean(0), COLORS[0], atol=6)

# --- splits made here

def many(root, counts, seed=0, twins=()):
    "As many images of each class as `counts` says; `twins` get a copy, a little darker."
    put(root/'classes.txt', '\n'.join(f'c{k}' for k in range(len(counts))))
    labels = [k for k, n in enumerate(counts) for _ in range(n)]
    for i, k in enumerate(labels):
        rng = np.random.default_rng((seed, i))
        im = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((48, 48), 3)
        put(root/f'i{i:03}.png', im)
        put(root/f'i{i:03}.txt', f'{k} .5 .5 .5 .5\n')
        if i in twins:
            im.point(lambda v: int(v*.9)).resize((64, 64)).save(root/f't{i:03}.jpg', quality=70)
            put(root/f't{i:03}.txt', f'{k} .5 .5 .5 .5\n')

def test_splits_are_stratified_and_seeded(tmp_path):
    many(tmp_path, (60, 30, 10))
    ids = {}
    for seed in (0, 0, 1):
        data = from_folder(tmp_path, seed=seed, val=.2, test=.1)
        parts = {s: d.ids for s, d in sets(data).items()}
        assert parts == ids.setdefault(seed, parts)
        assert sorted(sum(parts.values(), [])) == [f'i{i:03}' for i in range(100)]
        for split, share in dict(train=.7, val=.2, test=.1).items():
            ds = sets(data)[split]
            n = Counter(ds.annotation(i)['labels'][0].item() for i in range(len(ds)))
            for k, total in enumerate((60, 30, 10)):
                assert abs(n[k] - share*total) <= 1
    assert ids[0] != ids[1]

def test_near_duplicates_stay_on_one_side(tmp_path):
    twins = range(0, 60, 3)
    many(tmp_path, (40, 20), twins=twins)
    for seed in range(4):
        data = from_folder(tmp_path, seed=seed, val=.25, test=.25)
        at = {i: s for s, d in sets(data).items() for i in d.ids}
        assert [i for i in twins if at[f'i{i:03}'] != at[f't{i:03}']] == []
        assert len({at[f'i{i:03}'] for i in twins}) > 1
    assert any('near-duplicate' in n for n in data.notes)

def test_augmented_copies_of_roboflow_stay_on_one_side(tmp_path):
    many(tmp_path, (60,))
    for i in range(60):
        for ending in ('.png', '.txt'):
            path = tmp_path/f'i{i:03}{ending}'
            path.rename(tmp_path/f'IMG_{i//3}_jpg.rf.{i:04x}{ending}')
    at = {i: s for s, d in sets(from_folder(tmp_path)).items() for i in d.ids}
    split = {}
    for name, s in at.items():
        assert split.setdefault(name.partition('.rf.')[0], s) == s
    assert len(set(split.values())) == 3

def test_a_fixed_camera_is_said_and_split_all_the_same(tmp_path):
    voc_beside(tmp_path)
    still = picture(SET[0])
    for item in SET:
        put(tmp_path/f'{item[0]}.png', still.resize(item[1][::-1]))
    data = from_folder(tmp_path)
    assert set(sets(data)) == {'train', 'val', 'test'}
    assert any('fixed camera' in n for n in data.notes)

@pytest.mark.parametrize('n', [1, 2, 3, 4, 7])
def test_tiny_sets(tmp_path, n):
    many(tmp_path, (n,))
    data = from_folder(tmp_path)
    parts = [s for s in ('train', 'val', 'test') if s in sets(data)]
    assert parts == ['train', 'val', 'test'][:n]
    assert sum(len(d) for d in sets(data).values()) == n
    assert 'images' in data.summary()

def test_val_is_taken_from_train_only_where_it_is_missing(tmp_path):
    coco_roboflow(tmp_path)
    shutil.rmtree(tmp_path/'valid')
    data = from_folder(tmp_path, val=.25)
    assert len(data.val) == 3 and len(data.train) == 9
    assert data.test.ids == [SET[i][0] for i in SPLITS['test']]
    assert from_folder(tmp_path, val=0).val is None

def test_deal_favours_no_split():
    groups = [Counter({None: 1, k % 4: 1}) for k in range(400)]
    split = deal(groups, dict(train=.5, val=.3, test=.2), seed=5)
    assert Counter(split) == dict(train=200, val=120, test=80)

def test_fingerprints_survive_what_a_copy_does():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (40, 8, 10), dtype=np.uint8)
    imgs = [np.asarray(Image.fromarray(s).resize((320, 240), 3)) for s in small]
    paler = [Image.fromarray((i*.8 + 20).astype(np.uint8)) for i in imgs]
    copies = [np.asarray(p.resize((200, 150))) for p in paler]
    group = look_alikes([fingerprint(i) for i in [*imgs, *copies]])
    assert group.tolist() == [*range(40), *range(40)]

def test_the_same_image_in_two_given_splits(tmp_path):
    voc_devkit(tmp_path)
    lists = tmp_path/'VOCdevkit'/'VOCdesk'/'ImageSets'/'Main'
    put(lists/'train.txt', ''.join(f'{SET[i][0]}\n' for i in range(14)))
    data = from_folder(tmp_path)
    assert data.train.ids == [SET[i][0] for i in SPLITS['train']]
    assert any('2 images of val stood in train' in n for n in data.notes)

def test_a_val_that_is_the_train_folder_is_no_val(tmp_path):
    yolo_split(tmp_path)
    put(tmp_path/'data.yaml', f'train: images/train\nval: images/train\nnames: {list(NAMES)}')
    data = from_folder(tmp_path)
    assert data.train.ids == [SET[i][0] for i in SPLITS['train']]
    assert data.val.ids == [SET[i][0] for i in SPLITS['val']]  # the folder images/val says so
    for kind in ('images', 'labels'):
        shutil.rmtree(tmp_path/kind/'val')
    data = from_folder(tmp_path)
    assert len(data.train) + len(data.val) == 12 and not set(data.train.ids) & set(data.val.ids)
    assert any('no split of its own' in n for n in data.notes)

# --- names, endings, EXIF

ENDINGS = ['.jpg', '.JPG', '.Jpeg', '.png', '.bmp', '.webp', '.tif', '.TIFF', '.gif']

@pytest.mark.parametrize('ending', ENDINGS)
@pytest.mark.parametrize('stem', ['IMG 01 (1)', 'Ärger–数据.v2', 'a#b%20&c'])
def test_names_and_endings(tmp_path, stem, ending):
    item = (stem, (64, 96), [(1, 10, 8, 40, 28, False)])
    for layout in ('voc', 'coco', 'yolo'):
        image = tmp_path/layout/f'{stem}{ending}'
        image.parent.mkdir()
        picture(('0', *item[1:])).save(image)
    put(tmp_path/'voc'/f'{stem}.xml', xml(item, 'x').replace('<filename>x</filename>', ''))
    put(tmp_path/'yolo'/f'{stem}.txt', txt(item))
    put(tmp_path/'yolo'/'classes.txt', '\n'.join(NAMES))
    content = coco([item])
    content['images'][0]['file_name'] = f'images/{stem}{ending.swapcase()}'
    put(tmp_path/'coco'/'result.json', json.dumps(content))
    for layout in ('voc', 'coco', 'yolo'):
        data = from_folder(tmp_path/layout)
        assert data.train.ids == [stem]
        found = data.train.annotation(0)['boxes']
        np.testing.assert_allclose(found, [[10, 8, 40, 28]], atol=.01)
        assert data.train[0][0].shape == (64, 96, 3)

def test_accents_in_two_forms(tmp_path):
    item = ('e\u0301te\u0301', (64, 96), [(1, 10, 8, 40, 28, False)])  # as macOS writes it
    put(tmp_path/f'{item[0]}.png', picture(('0', *item[1:])))
    content = coco([item])
    content['images'][0]['file_name'] = 'été.png'
    put(tmp_path/'a.json', json.dumps(content, ensure_ascii=False))
    assert len(from_folder(tmp_path).train) == 1

def stored(path, turn, box, size=(64, 96)):
    "Write an image that a viewer shows upright, with `box` bright, stored as the EXIF turn asks."
    im = Image.new('RGB', size[::-1], (40, 40, 60))
    ImageDraw.Draw(im).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=COLORS[0])
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}
    exif = Image.Exif()
    exif[0x0112] = turn
    im = im.transpose(undo[turn]) if turn in undo else im
    path.parent.mkdir(parents=True, exist_ok=True)
    im.save(path, exif=exif, quality=95, subsampling=0)
    return im.size[::-1]

@pytest.mark.parametrize('size', [(64, 96), (80, 80)])
@pytest.mark.parametrize('turn', range(1, 9))
def test_exif_boxes_of_the_upright_image(tmp_path, turn, size):
    box = (10, 8, 40, 28)
    item = ('a', size, [(0, *box, False)])
    for layout in ('voc', 'coco', 'yolo'):
        stored(tmp_path/layout/'a.jpg', turn, box, size)
    put(tmp_path/'voc'/'a.xml', xml(item, 'a.jpg'))
    put(tmp_path/'yolo'/'a.txt', txt(item))
    put(tmp_path/'yolo'/'classes.txt', 'key')
    content = coco([item])
    content['images'][0]['file_name'] = 'a.jpg'
    put(tmp_path/'coco'/'a.json', json.dumps(content))
    for layout in ('voc', 'coco', 'yolo'):
        data = from_folder(tmp_path/layout)
        told = turn >= 5 and size[0] != size[1] and layout != 'yolo'  # by the size in the labels
        assert any('turned by EXIF' in n for n in data.notes) == (turn > 1 and not told)
        img, target = data.train[0]
        assert img.shape[:2] == size
        x1, y1, x2, y2 = target['boxes'][0].round().int().tolist()
        inner = img[y1 + 2:y2 - 2, x1 + 2:x2 - 2].reshape(-1, 3)
        np.testing.assert_allclose(inner.mean(0), COLORS[0], atol=6)

@pytest.mark.parametrize('turn', [5, 6, 7, 8])
def test_exif_boxes_of_the_stored_image(tmp_path, turn):
    "A tool that ignores EXIF writes the stored size and the stored box."
    box, size = (10, 8, 40, 28), (64, 96)
    kept = stored(tmp_path/'a.jpg', turn, box, size)
    with Image.open(tmp_path/'a.jpg') as im:
        ys, xs = np.nonzero(np.asarray(im)[..., 0] > 150)
    inside = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
    put(tmp_path/'a.xml', xml(('a', kept, [(0, *inside, False)]), 'a.jpg'))
    data = from_folder(tmp_path)
    assert data.train.annotation(0)['size'] == size
    assert data.train.annotation(0)['boxes'].tolist() == [list(map(float, box))]

@pytest.mark.parametrize('turn', range(1, 9))
def test_turn_box_moves_as_pillow_turns(turn):
    from PIL import ImageOps
    im = Image.new('L', (30, 20))
    ImageDraw.Draw(im).rectangle((3, 5, 9, 7), fill=255)
    im.getexif()[0x0112] = turn
    ys, xs = np.nonzero(np.asarray(ImageOps.exif_transpose(im)))
    true = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    assert turn_box((3, 5, 10, 8), (20, 30), turn) == true

def test_exif_in_label_studios_coco(tmp_path):
    "It writes the stored size, but its rectangles are those of the upright image."
    box = (10, 8, 40, 28)
    kept = stored(tmp_path/'images'/'a.jpg', 6, box)
    content = coco([('a', kept, [(0, *box, False)])]) | dict(info=dict(contributor='Label Studio'))
    content['images'][0]['file_name'] = 'images\\a.jpg'
    put(tmp_path/'result.json', json.dumps(content))
    assert from_folder(tmp_path).train.annotation(0)['boxes'].tolist() == [list(map(float, box))]
    content['annotations'][0]['segmentation'] = [[10, 8, 40, 8, 40, 28]]
    put(tmp_path/'result.json', json.dumps(content))
    with pytest.raises(InputError, match='EXIF') as e:
        from_folder(tmp_path)
    one_sentence(e)

# --- what single annotations say

def single(root, layout, values, size=(64, 96), label=1):
    "One image with one object, whose four numbers stand as `values` in the layout's own form."
    item = ('a', size, [])
    put(root/'a.png', picture(('0', size, [(1, 10, 8, 40, 28, False)])))
    if layout == 'voc':
        tags = zip(('xmin', 'ymin', 'xmax', 'ymax'), values)
        box = f'<bndbox>{"".join(f"<{k}>{v}</{k}>" for k, v in tags)}</bndbox>'
        said = f'<object><name>{NAMES[label]}</name>{box}</object></annotation>'
        put(root/'a.xml', xml(item).replace('</annotation>', said))
    elif layout == 'coco':
        content = coco([item])
        content['annotations'] = [dict(id=1, image_id=0, category_id=label + 1, bbox=values)]
        put(root/'a.json', json.dumps(content))
    else:
        put(root/'classes.txt', '\n'.join(NAMES))
        put(root/'a.txt', f'{label} {" ".join(map(str, values))}\n')

GOOD = [
    ('voc', (11, 9, 40, 28), (10, 8, 40, 28)),
    ('voc', (0, 0, 40, 28), (0, 0, 40, 28)),
    ('voc', (11, 9, 97, 28), (10, 8, 96, 28)),
    ('voc', (11, 9, '96.0000001', 28), (10, 8, 96, 28)),
    ('voc', (11.4, 9.4, 40.25, 28.75), (10.4, 8.4, 40.25, 28.75)),
    ('coco', [10, 8, 30, 20], (10, 8, 40, 28)),
    ('coco', [-.5, 8, 97, 20], (0, 8, 96, 28)),
    ('coco', ['10', '8.5', 30, 20], (10, 8.5, 40, 28.5)),
    ('yolo', (.5, .5, 1, 1), (0, 0, 96, 64)),
    ('yolo', (.5, .5, 1.0000001, 1.000001), (0, 0, 96, 64)),
    ('yolo', (.25, .25, .75, .25, .5, .75), (24, 16, 72, 48)),
    ('yolo', (.25, .25, .75, .25, .75, .75, .25, .75), (24, 16, 72, 48)),
    ('yolo', (.5, .5, '5e-1', '+.5'), (24, 16, 72, 48)),
]

@pytest.mark.parametrize('layout,values,true', GOOD)
def test_right_boxes(tmp_path, layout, values, true):
    single(tmp_path, layout, values)
    a = from_folder(tmp_path).train.annotation(0)
    np.testing.assert_allclose(a['boxes'][0].numpy(), true, atol=1e-4)
    assert a['labels'].tolist() == [list(from_folder(tmp_path).classes).index('marker')]

BAD = [
    ('voc', (-1, 9, 40, 28)), ('voc', (11, 9, 10, 28)), ('voc', (40, 28, 11, 9)),
    ('voc', (11, 9, 99, 28)),
    ('voc', ('nan', 9, 40, 28)), ('voc', ('', 9, 40, 28)), ('voc', ('1_1', 9, 40, 28)),
    ('voc', ('11,5', 9, 40, 28)), ('voc', ('1e999', 9, 40, 28)),
    ('coco', [10, 8, -30, 20]), ('coco', [10, 8, 0, 20]), ('coco', [10, 8, float('nan'), 20]),
    ('coco', [10, 8, float('inf'), 20]), ('coco', [10, 8, 30]), ('coco', [10, 8, None, 20]),
    ('coco', [10, 8, True, 20]), ('coco', 'abcd'), ('coco', [200, 8, 30, 20]),
    ('coco', [-5, 8, 30, 20]),
    ('coco', {'x': 1}), ('coco', [[1], 2, 3, 4]), ('coco', []),
    ('yolo', (.5, .5, -.5, .5)), ('yolo', (.5, .5, 0, .5)), ('yolo', (.5, .5, 'nan', .5)),
    ('yolo', (.5, .5, .5)), ('yolo', (.5, .5, .5, .5, .9)), ('yolo', (48, 32, 30, 20)),
    ('yolo', (.9, .5, .5, .5)), ('yolo', ('0,5', .5, .5, .5)), ('yolo', ()),
]

@pytest.mark.parametrize('layout,values', BAD)
def test_bad_boxes_are_refused_by_name(tmp_path, layout, values):
    single(tmp_path, layout, values)
    with pytest.raises(InputError) as e:
        from_folder(tmp_path)
    assert 'a.' in one_sentence(e)
    many_root = tmp_path/'more'
    {'voc': voc_beside, 'coco': coco_one, 'yolo': yolo_flat}[layout](many_root)
    if layout == 'coco':
        content = json.loads((many_root/'annotations'/'instances_default.json').read_text())
        content['annotations'].append(dict(id=99, image_id=0, category_id=1, bbox=values))
        put(many_root/'annotations'/'instances_default.json', json.dumps(content))
    else:
        ending = dict(voc='.xml', yolo='.txt')[layout]
        shutil.copy(tmp_path/f'a{ending}', many_root/f'{SET[0][0]}{ending}')
        if layout == 'voc':
            path = many_root/f'{SET[0][0]}.xml'
            h, w = SET[0][1]
            text = path.read_text().replace('<width>96</width><height>64</height>',
                                            f'<width>{w}</width><height>{h}</height>')
            put(path, text.replace('a.png', f'{SET[0][0]}.png'))
    with pytest.raises(InputError, match=SET[0][0] if layout != 'coco' else 'annotation 99') as e:
        from_folder(many_root)
    data = from_folder(many_root, skip_bad=True)
    assert boxes(data).keys() == {s for s, *_ in SET[1:]}
    assert any('left out' in n for n in data.notes)

def test_clip_box():
    assert clip_box((-.5, 0, 20.5, 10), (10, 20)) == (0, 0, 20, 10)
    assert clip_box((-3, 0, 20, 10), (10, 20), edge=4) == (0, 0, 20, 10)
    for box in ((-3, 0, 20, 10), (0, 0, 0, 5), (20.2, 0, 20.5, 5), (5, 5, 4, 9)):
        with pytest.raises(InputError):
            clip_box(box, (10, 20))

def test_boxes_further_out_are_cut_when_asked(tmp_path):
    single(tmp_path, 'coco', [-5, 8, 30, 20])
    assert from_folder(tmp_path, edge=8).train.annotation(0)['boxes'].tolist() == [[0, 8, 25, 28]]

def test_duplicates_count_once(tmp_path):
    for layout, ending in (('voc', '.xml'), ('yolo', '.txt')):
        single(tmp_path/layout, layout, (11, 9, 40, 28) if layout == 'voc' else (.5, .5, .5, .5))
        path = tmp_path/layout/f'a{ending}'
        text = path.read_text()
        twice = re.sub(r'(<object>.*</object>)', r'\1\1', text) if layout == 'voc' else text*2
        path.write_text(twice)
        data = from_folder(tmp_path/layout)
        assert len(data.train.annotation(0)['labels']) == 1
        assert any('twice' in n for n in data.notes)

# --- what folders hold

def test_background_with_and_without_label_files(tmp_path):
    yolo_flat(tmp_path)
    put(tmp_path/'bare.png', picture(draw(1, 5)[0], 5))
    data = from_folder(tmp_path)
    assert 'bare' in boxes(data) and boxes(data)['bare'] == []
    assert any('1 of them without a label file' in n for n in data.notes)
    assert not any('not labelled yet' in n for n in data.notes)
    assert boxes(from_folder(tmp_path, background=False)).keys() == {s for s, *_ in SET}

def test_images_of_no_coco_file_are_left_out_and_counted(tmp_path):
    coco_one(tmp_path)
    put(tmp_path/'images'/'default'/'bare.png', picture(draw(1, 5)[0], 5))
    data = from_folder(tmp_path)
    assert 'bare' not in boxes(data) and any('1 image beside them' in n for n in data.notes)

@pytest.mark.parametrize('layout', LAYOUTS)
def test_labels_without_images(tmp_path, layout):
    LAYOUTS[layout](tmp_path)
    next(tmp_path.rglob('img 03.png')).unlink()
    with pytest.raises(InputError, match='img 03') as e:
        from_folder(tmp_path)
    one_sentence(e)
    assert boxes(from_folder(tmp_path, skip_bad=True)).keys() == {s for s, *_ in SET} - {'img 03'}

def test_an_image_of_another_split_does_not_stand_in(tmp_path):
    for layout in (coco_roboflow, yolo_roboflow):
        root = tmp_path/layout.__name__
        layout(root)
        image = next(root.rglob('img 03.png'))
        image.rename(image.parents[len(image.relative_to(root).parts) - 1]/'test'/
                     ('images' if 'yolo' in layout.__name__ else '.')/'img 03.png')
        with pytest.raises(InputError, match='img 03'):
            from_folder(root)

@pytest.mark.parametrize('first', [0, 1, 7, 90])
def test_category_ids(tmp_path, first):
    content = coco(SET, first)
    for k, category in enumerate(content['categories']):
        category['id'] = first + k*10
    for row in content['annotations']:
        row['category_id'] = first + (row['category_id'] - first)*10
    coco_one(tmp_path)
    put(tmp_path/'annotations'/'instances_default.json', json.dumps(content))
    data = from_folder(tmp_path)
    assert data.classes == NAMES
    agree(boxes(data), TRUE, 0)

YAML_NAMES = ['[key, marker, pencil]', '{0: key, 1: marker, 2: pencil}',
              '\n- key\n- marker\n- pencil', '{"2": pencil, "0": key, "1": marker}']

@pytest.mark.parametrize('names', YAML_NAMES)
def test_names_in_yaml(tmp_path, names):
    yolo_roboflow(tmp_path)
    said = f'train: train/images\nval: valid/images\nnc: 3\nnames: {names}\n'
    put(tmp_path/'data.yaml', '\ufeff' + said)
    data = from_folder(tmp_path)
    assert data.classes == NAMES
    agree(boxes(data), TRUE, .01)
    assert data.test.ids == [SET[i][0] for i in SPLITS['test']]  # named by its folder alone
    put(tmp_path/'more'/'images'/'x.png', picture(SET[0], 3))
    put(tmp_path/'more'/'labels'/'x.txt', txt(SET[0]))
    data = from_folder(tmp_path)
    assert any('their split: 1 image' in n for n in data.notes) and 'x' not in boxes(data)

@pytest.mark.parametrize('train,val', [
    ('C:\\Users\\me\\desk\\train\\images', 'C:\\Users\\me\\desk\\valid\\images'),
    ('/content/desk/train/images', '/content/desk/valid/images'),
    ('..\\train\\images', '..\\valid\\images'), ('train', 'valid'),
    ('./train/images/', './valid/images/'),
    (['train/images'], ['valid/images'])])
def test_paths_of_another_machine(tmp_path, train, val):
    yolo_roboflow(tmp_path)
    config = dict(path='D:\\data', train=train, val=val, names=list(NAMES))
    put(tmp_path/'data.yaml', yaml.safe_dump(config))
    data = from_folder(tmp_path)
    assert data.train.ids == [SET[i][0] for i in SPLITS['train']]
    assert data.val.ids == [SET[i][0] for i in SPLITS['val']]

def test_a_split_that_yaml_names_and_nobody_has(tmp_path):
    yolo_roboflow(tmp_path)
    shutil.rmtree(tmp_path/'valid')
    data = from_folder(tmp_path, val=.25)
    assert any('not there' in n for n in data.notes)
    assert len(data.train) == 9 and len(data.val) == 3 and len(data.test) == 4

def test_windows_layout_and_lists_of_cvat(tmp_path):
    yolo_split(tmp_path/'a')
    assert len(from_folder(tmp_path/'a').val) == 4
    root = tmp_path/'b'
    put(root/'obj.names', '\r\n'.join(NAMES) + '\r\n')
    put(root/'obj.data', 'classes = 3\nnames = data/obj.names\ntrain = data/train.txt\n')
    put(root/'train.txt', ''.join(f'data/obj_train_data/{s}.png\n' for s, *_ in SET))
    for item in SET:
        put(root/'obj_train_data'/f'{item[0]}.png', picture(item))
        put(root/'obj_train_data'/f'{item[0]}.txt', txt(item))
    data = from_folder(root)
    agree(boxes(data), TRUE, .01)
    assert data.val and data.test is None

def test_keypoints_after_the_box_are_no_polygon(tmp_path):
    single(tmp_path, 'yolo', (.5, .5, .5, .5, .1, .1, 2, .9, .9, 0))
    put(tmp_path/'data.yaml', 'names: [key, marker, pencil]\nkpt_shape: [2, 3]')
    assert from_folder(tmp_path).train.annotation(0)['boxes'].tolist() == [[24, 16, 72, 48]]

def test_byte_order_marks_and_empty_files(tmp_path):
    yolo_flat(tmp_path)
    for item in SET:
        put(tmp_path/f'{item[0]}.txt', b'\xef\xbb\xbf' + txt(item).replace('\n', '\r\n').encode())
    put(tmp_path/'classes.txt', '\ufeff' + '\n'.join(NAMES) + '\n\n')
    agree(boxes(from_folder(tmp_path)), TRUE, .01)
    for i in (0, 1):
        put(tmp_path/f'{SET[i][0]}.txt', ['', ' \n\n'][i])
    assert boxes(from_folder(tmp_path))[SET[1][0]] == []

def test_only_some_classes(tmp_path):
    for name, layout in LAYOUTS.items():
        layout(tmp_path/name)
        data = from_folder(tmp_path/name, classes=['pencil', 'key'])
        assert data.classes == ('pencil', 'key')
        true = {s: [r for r in rows if r[0] != 'marker'] for s, rows in TRUE.items()}
        agree(boxes(data), true, .01)
        assert any('left out on purpose' in n and 'marker' in n for n in data.notes)
    for wrong in (['pencl'], 'pencil', ['key', 'key']):
        with pytest.raises(InputError) as e:
            from_folder(tmp_path/'voc_flat', classes=wrong)
        one_sentence(e)

def test_names_given_where_yolo_has_none(tmp_path):
    yolo_flat(tmp_path)
    (tmp_path/'classes.txt').unlink()
    with pytest.raises(InputError, match='classes') as e:
        from_folder(tmp_path)
    one_sentence(e)
    agree(boxes(from_folder(tmp_path, classes=NAMES)), TRUE, .01)
    with pytest.raises(InputError, match='class 2'):
        from_folder(tmp_path, classes=NAMES[:2])

def test_two_formats_in_one_folder_are_refused_with_the_way_out(tmp_path):
    voc_beside(tmp_path)
    yolo_flat(tmp_path)
    with pytest.raises(InputError, match="layout='voc'") as e:
        from_folder(tmp_path)
    one_sentence(e)
    agree(boxes(from_folder(tmp_path, layout='voc')), TRUE, 0)
    agree(boxes(from_folder(tmp_path, layout='yolo')), TRUE, .01)

def test_one_label_file_may_be_named(tmp_path):
    coco_one(tmp_path)
    put(tmp_path/'again.json', json.dumps(coco(SET[:5])))
    assert len(boxes(from_folder(tmp_path/'again.json'))) == 5
    put(tmp_path/'annotations'/'parts_default.json', json.dumps(coco(SET)))
    (tmp_path/'annotations'/'instances_default.json').unlink()
    with pytest.raises(InputError, match='keep one') as e:
        from_folder(tmp_path)
    one_sentence(e)

def test_a_size_of_nothing(tmp_path):
    voc_beside(tmp_path)
    for item in SET:
        put(tmp_path/f'{item[0]}.xml', re.sub(r'(<width>|<height>)\d+', r'\g<1>0', xml(item)))
    data = from_folder(tmp_path)
    agree(boxes(data), TRUE, 0)
    assert any('size 0' in n for n in data.notes)

def test_a_size_of_another_image(tmp_path):
    voc_beside(tmp_path)
    put(tmp_path/'img 00.png', picture(SET[0]).resize((50, 40)))
    with pytest.raises(InputError, match='50×40') as e:
        from_folder(tmp_path)
    one_sentence(e)

# a few hundred bytes that would be 10 GB if anybody wrote them out
ALIASES = 'a0: &a0 [x]\n' + ''.join(
    f'a{k}: &a{k} [{", ".join([f"*a{k - 1}"]*10)}]\n' for k in range(1, 11)) + 'names: *a10\n'

@pytest.mark.parametrize('make', [
    lambda r: None, lambda r: put(r/'a.png', picture(SET[0])),
    lambda r: put(r/'a.xml', '<annotations/>'),
    lambda r: put(r/'a.json', '{'), lambda r: put(r/'a.json', '{"shapes": []}'),
    lambda r: put(r/'a.json', '['*100_000), lambda r: put(r/'classes.txt', 'a\nb'),
    lambda r: (put(r/'classes.txt', 'a\n\nb'), put(r/'a.txt', '0 .5 .5 .5 .5')),
    lambda r: put(r/'data.yaml', 'names: [a'), lambda r: put(r/'data.yaml', 'names: {a: b}'),
    lambda r: put(r/'data.yaml', 'names: 3'), lambda r: put(r/'data.yaml', 'names: [a, b]\nnc: 3'),
    lambda r: put(r/'data.yaml', 'names: [[1], b]'), lambda r: put(r/'data.yaml', ALIASES),
    lambda r: put(r/'data.yaml', 'names: [a, b]\ntrain: 3'),
    lambda r: put(r/'data.yaml', 'names: [a, a]'), lambda r: put(r/'data.yaml', 'names: [a, b]'),
    lambda r: put(r/'data.yaml', '!!python/object/apply:os.system ["true"]'),
    lambda r: put(r/'labels'/'a.txt', '0 .5 .5 .5 .5'),
])
def test_folders_that_cannot_be_read(tmp_path, make):
    root = tmp_path/'mine'
    root.mkdir()
    make(root)
    with pytest.raises(InputError) as e:
        from_folder(root)
    assert str(root) in one_sentence(e)

@pytest.mark.parametrize('path', ['', None, 'nowhere', 'file.zip'])
def test_paths_that_are_no_folder(tmp_path, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path/'file.zip', 'PK')
    with pytest.raises(InputError) as e:
        from_folder(path)
    one_sentence(e)

IMPOSSIBLE = [dict(val=-1), dict(val=1), dict(val=.5, test=.5), dict(layout='csv'),
              dict(val=float('nan')), dict(edge=float('nan')), dict(edge=-1)]

@pytest.mark.parametrize('options', IMPOSSIBLE)
def test_settings_that_cannot_be(tmp_path, options):
    voc_flat(tmp_path)
    with pytest.raises(InputError) as e:
        from_folder(tmp_path, **options)
    one_sentence(e)

@pytest.mark.parametrize('wrong', [
    '<annotation>', '<annotation><object/></annotation>',
    '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>',
    '<annotation><bndbox/></annotation>', ''])
def test_broken_xml(tmp_path, wrong):
    voc_beside(tmp_path)
    put(tmp_path/'img 04.xml', wrong)
    with pytest.raises(InputError, match='img 04') as e:
        from_folder(tmp_path)
    one_sentence(e)
    assert len(boxes(from_folder(tmp_path, skip_bad=True))) == 19

def test_an_annotation_of_another_image(tmp_path):
    voc_beside(tmp_path)
    put(tmp_path/'img 04.xml', xml(SET[4], 'img 05.png'))
    with pytest.raises(InputError, match='img 05'):
        from_folder(tmp_path)

def test_broken_images(tmp_path):
    voc_beside(tmp_path)
    put(tmp_path/'img 04.png', b'this is text')
    whole = (tmp_path/'img 05.png').read_bytes()
    put(tmp_path/'img 05.png', whole[:-200])
    with pytest.raises(InputError, match='img 04') as e:
        from_folder(tmp_path)
    one_sentence(e)
    data = from_folder(tmp_path, skip_bad=True, val=0, test=0)
    assert len(data.train) == 19
    assert [data.train.ids[i] for i in find_faults(data.train, progress=False)] == ['img 05']

def test_an_image_one_pixel_wide_is_refused_before_it_is_decoded(tmp_path):
    yolo_flat(tmp_path)
    Image.new('1', (1, 40_000)).save(tmp_path/'img 04.png')
    with pytest.raises(InputError, match='img 04') as e:
        from_folder(tmp_path)
    one_sentence(e)

def test_heic_is_named(tmp_path):
    yolo_flat(tmp_path)
    put(tmp_path/'IMG_1.HEIC', b'ftypheic')
    assert any('1 file' in n and 'HEIC' in n for n in from_folder(tmp_path).notes)
    put(tmp_path/'IMG_1.txt', txt(SET[0]))
    with pytest.raises(InputError, match='IMG_1.HEIC') as e:
        from_folder(tmp_path)
    one_sentence(e)

def test_hidden_files_are_no_images(tmp_path):
    voc_flat(tmp_path)
    put(tmp_path/'images'/'._img 00.png', b'mac')
    put(tmp_path/'__MACOSX'/'img 00.png', b'mac')
    put(tmp_path/'.git'/'img 00.xml', 'x')
    agree(boxes(from_folder(tmp_path)), TRUE, 0)

def test_pipes_and_links_to_nowhere_are_no_files(tmp_path):
    yolo_flat(tmp_path)
    os.mkfifo(tmp_path/'img 00.xml')
    (tmp_path/'gone.png').symlink_to(tmp_path/'nowhere.png')
    agree(boxes(from_folder(tmp_path)), TRUE, .01)

def test_links_are_followed_and_not_in_circles(tmp_path):
    voc_flat(tmp_path/'there')
    (tmp_path/'mine').mkdir()
    for name in ('images', 'annotations'):
        (tmp_path/'mine'/name).symlink_to(tmp_path/'there'/name)
    (tmp_path/'there'/'images'/'again').symlink_to(tmp_path/'mine')
    agree(boxes(from_folder(tmp_path/'mine')), TRUE, 0)

def test_years_of_a_devkit_and_masks_beside_it(tmp_path):
    voc_devkit(tmp_path)
    shutil.copytree(tmp_path/'VOCdevkit'/'VOCdesk', tmp_path/'VOCdevkit'/'VOCmore')
    more = tmp_path/'VOCdevkit'/'VOCmore'
    for path in sorted(more.rglob('img *')):
        path.rename(path.with_name(path.name.replace('img', 'more')))
    for path in (more/'Annotations').iterdir():
        put(path, path.read_text().replace('img', 'more'))
    for path in (more/'ImageSets'/'Main').iterdir():
        lines = path.read_text().replace('img', 'JPEGImages/more').splitlines()
        put(path, ''.join(f'{line}.png  1\n' for line in lines))
    put(more/'SegmentationClass'/'more 00.png', picture(SET[0]))
    data = from_folder(tmp_path)
    assert len(data.train) == 24 and len(data.val) == 8 and len(data.test) == 8
    assert sum(len(v) for v in boxes(data).values()) == 2*sum(len(v) for v in TRUE.values())

@pytest.mark.parametrize('name,split', [
    ('train', 'train'), ('valid', 'val'), ('dev', 'val'), ('validation', 'val'), ('Val2017', 'val'),
    ('instances_train2017', 'train'), ('images_test', 'test'), ('obj_train_data', 'train'),
    ('train_station', None), ('train_val', None), ('photos', None), ('_annotations.coco', None)])
def test_split_of(name, split):
    assert split_of(name) == split

def test_files_from_another_machine(tmp_path):
    for path in ('a/x.png', 'b/x.png', 'b/y.png'):
        put(tmp_path/path, picture(SET[0]))
    files = Files(tmp_path)
    assert files.match('C:\\data\\b\\X.PNG') == [tmp_path/'b'/'x.png']
    assert len(files.match('x.png')) == 2 and files.match('../../etc/passwd') == []

# --- from a folder to the app

def test_three_commands_lead_from_a_foreign_folder_to_boxes_and_a_heat_map(tmp_path, tool):
    pytest.importorskip('gradio', reason="Gradio, which the app needs, is not installed: "
                        "pip install -e '.[app]'")
    yolo_roboflow(tmp_path/'in', SET)
    (tmp_path/'work').mkdir()
    flags = ('--size', '64', '--width', '.0625', '--epochs', '2', '--no-progress')
    commands, seconds, answer = tool('own_to_app').go(tmp_path/'in', tmp_path/'work', flags,
                                                      score=1e-3)  # it has hardly learnt a thing
    assert [c[0] for c in commands] == ['yolov3_data', 'yolov3_train', 'yolov3_app']
    assert len(seconds) == 3 and answer['rows']
    assert {row[1] for row in answer['rows']} <= set(NAMES)
    shown, heat = (np.array(Image.open(answer[k]).convert('RGB')) for k in ('shown', 'heat'))
    plain = np.array(Image.open(tool('own_to_app').test_image(tmp_path/'work'/'clean')))
    for drawn in (shown, heat):  # both have the form of the image
        assert drawn.shape[0]/drawn.shape[1] == pytest.approx(plain.shape[0]/plain.shape[1], .02)
    assert shown.shape == heat.shape and (shown != heat).mean() > .2  # the map covers the image
    assert (tmp_path/'work'/'runs'/'own-1'/'report.html').is_file()

# --- 400 mutated annotations

ODD_TEXTS = ('0', '-1', '1', '3', '1e9', 'nan', 'NaN', 'Infinity', 'null', '.5', '"7"', '12.75', '')
ODD_NUMBERS = (0, -1, 3, 12.5, 500, None, 'x', '7', float('nan'), True, [1], 1e300)
ODD_VALUES = (0, 1, 2, 3, -1, '1', None, True, [], {}, 'x', 2.5, float('inf'), [1, 2, 3, 4])

def mutate(text, rng):
    "One to three small accidents."
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            text = text[:at] + text[at + rng.randint(1, 4):]
        elif kind == 1:
            text = text[:at] + rng.choice(list('0123456789.-e, "[]{}:\n\t\x00é')) + text[at:]
        elif kind == 2:
            numbers = list(re.finditer(r'[\d.]+', text))
            if numbers:
                m = rng.choice(numbers)
                text = text[:m.start()] + rng.choice(ODD_TEXTS) + text[m.end():]
        elif kind == 3:
            lines = text.splitlines(keepends=True)
            if lines:
                text = text + ('\n' if text[-1:] != '\n' else '') + rng.choice(lines)
        elif kind == 4:
            text = text[:at]
        else:
            words = list(re.finditer(r'"\w+"|\S+', text))
            if words:
                a, b = rng.choice(words), rng.choice(words)
                text = text[:a.start()] + b[0] + text[a.end():]
    return text

def mutate_json(data, rng):
    "One value of a COCO file lost, doubled, or put in another's place."
    data = json.loads(json.dumps(data))
    for _ in range(rng.randint(1, 2)):
        lists = [data.get(k) or () for k in ('images', 'annotations', 'annotations', 'categories')]
        rows = [row for rows in lists for row in rows if isinstance(row, dict) and row]
        row = rng.choice(rows or [data])
        key = rng.choice(sorted(row))
        kind = rng.randrange(5)
        if kind == 0:
            del row[key]
        elif kind == 1 and key == 'bbox' and isinstance(row[key], list):
            row[key][rng.randrange(4)] = rng.choice(ODD_NUMBERS)
        elif kind == 2:
            row[key] = rng.choice(ODD_VALUES)
        elif kind == 3:
            data['annotations'].append(rng.choice(data['annotations']))
        else:
            other = rng.choice(data['annotations'])
            row[key] = other.get(key, 1) if isinstance(other, dict) else 1
    return json.dumps(data)

def cut(x1, y1, x2, y2, h, w):
    return np.float32([max(x1, 0), max(y1, 0), min(x2, w), min(y2, h)]).tolist()

def plain_yolo(text, size):
    "What a mutated label file says, by the plainest reading."
    rows, (h, w) = set(), size
    for line in text.lstrip('\ufeff').splitlines():
        if line.strip():
            c, *v = map(float, line.split())
            if len(v) == 4:
                x1, y1, x2, y2 = v[0] - v[2]/2, v[1] - v[3]/2, v[0] + v[2]/2, v[1] + v[3]/2
            else:
                x1, y1, x2, y2 = min(v[::2]), min(v[1::2]), max(v[::2]), max(v[1::2])
            assert c in (0, 1, 2) and x1 < x2 and y1 < y2
            assert min(x1*w, y1*h) >= -1 and x2*w <= w + 1 and y2*h <= h + 1
            rows.add((NAMES[int(c)], *cut(x1*w, y1*h, x2*w, y2*h, h, w)))
    return sorted(rows)

def plain_coco(text):
    "Name of an image -> rows, by the plainest reading of a mutated file."
    data = json.loads(text)
    names = {c['id']: str(c['name']).strip() for c in data['categories']}
    stems = {i['id']: Path(i['file_name'].replace('\\', '/')).stem for i in data['images']}
    images = {i: (stem, set()) for i, stem in stems.items()}
    sizes = {s: hw for s, hw, _ in SET}
    for a in data['annotations']:
        stem, rows = images[a['image_id']]
        (h, w), (x, y, bw, bh) = sizes[stem], map(float, a['bbox'])
        assert bw > 0 and bh > 0 and x >= -1 and y >= -1 and x + bw <= w + 1 and y + bh <= h + 1
        rows.add((names[a['category_id']], *cut(x, y, x + bw, y + bh, h, w)))
    return {stem: sorted(rows) for stem, rows in images.values()}

def test_200_mutated_yolo_files(tmp_path):
    rng, read, refused = random.Random(7), 0, 0
    yolo_flat(tmp_path, SET[:3])
    for n in range(200):
        item = SET[n % 3]
        text = mutate(txt(item), rng)
        put(tmp_path/f'{item[0]}.txt', text)
        try:
            found = boxes(from_folder(tmp_path, val=0, test=0))
        except InputError as e:
            refused += 1
            assert '\n' not in str(e) and item[0] in str(e), text
        else:
            read += 1
            agree({'it': found[item[0]]}, {'it': plain_yolo(text, item[1])}, 1e-3)
        put(tmp_path/f'{item[0]}.txt', txt(item))
    assert read > 30 and refused > 60

def test_200_mutated_coco_files(tmp_path):
    rng, read, refused = random.Random(8), 0, 0
    coco_one(tmp_path, SET[:3])
    path = tmp_path/'annotations'/'instances_default.json'
    content = coco(SET[:3])
    for n in range(200):
        text = mutate_json(content, rng) if n % 4 else mutate(json.dumps(content, indent=0), rng)
        put(path, text)
        try:
            found = boxes(from_folder(tmp_path, val=0, test=0))
        except InputError as e:
            refused += 1
            assert '\n' not in str(e) and len(str(e)) > 20, text
        else:
            read += 1
            agree(found, plain_coco(text), 1e-3)
    assert read > 30 and refused > 60
