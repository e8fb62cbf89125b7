"Small data sets that once went wrong, and what is right; a dark frame with one bright square each."
import json
import math
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFile

from yolov3_nb.augment import DetectionDataset, collate, test_transform as plain_transform
from yolov3_nb.data import VOCDataset, census, find_faults, read_annotation, read_split, without_bad
from yolov3_nb.files import InputError, InputWarning, read_image, read_json, to_json, write_json

DARK, BRIGHT = (40, 40, 60), (255, 170, 0)
BOX = 10, 10, 50, 40  # as the XML says it: pixels from 1, both ends inside
EDGES = [9., 9., 50., 40.]


def frame(w=96, h=96, box=BOX):
    "A dark image with a bright box."
    im = Image.new('RGB', (w, h), DARK)
    if box:
        x1, y1, x2, y2 = box
        ImageDraw.Draw(im).rectangle((x1 - 1, y1 - 1, x2 - 1, y2 - 1), fill=BRIGHT)
    return im


def object_xml(name, box, difficult=0):
    corners = zip(('xmin', 'ymin', 'xmax', 'ymax'), box)
    inner = ''.join(f'<{tag}>{value}</{tag}>' for tag, value in corners)
    return (f'<object><name>{name}</name><difficult>{difficult}</difficult>'
            f'<bndbox>{inner}</bndbox></object>')


def annotation_xml(objects, size=(96, 96)):
    tag = f'<size><width>{size[0]}</width><height>{size[1]}</height></size>' if size else ''
    return f'<annotation>{tag}{"".join(object_xml(*o) for o in objects)}</annotation>'


class Devkit:
    "A devkit VOCmine that is being filled."

    def __init__(self, root):
        self.root = Path(root)
        self.folder = self.root/'VOCmine'
        for name in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
            (self.folder/name).mkdir(parents=True)

    def add(self, name, objects=(('thing', BOX),), im=None, ending='.png', size=(96, 96), **save):
        path = self.folder/'JPEGImages'/f'{name}{ending}'
        (im or frame()).save(path, **save)
        xml = annotation_xml(objects, size)
        (self.folder/'Annotations'/f'{name}.xml').write_text(xml, encoding='utf-8')
        return path

    def split(self, *lines, name='train'):
        path = self.folder/'ImageSets'/'Main'/f'{name}.txt'
        path.write_text('\n'.join(lines) + '\n', encoding='utf-8')

    def read(self, *splits, classes=('thing',), **options):
        sets = [('mine', split) for split in splits or ('train',)]
        return VOCDataset(self.root, sets, classes, **options)


@pytest.fixture
def devkit(tmp_path):
    return Devkit(tmp_path/'data')


@pytest.fixture(autouse=True)
def no_warning_is_expected():
    "A warning that a test does not ask for is a failure."
    with warnings.catch_warnings():
        warnings.simplefilter('error', InputWarning)
        yield


def only(ds, i=0):
    img, target = ds[i]
    return img, target['boxes'].tolist()


# EXIF: the pixels are stored in one of eight ways, with a note that brings them upright

FLIPS = Image.Transpose
UNDO = {1: None, 2: FLIPS.FLIP_LEFT_RIGHT, 3: FLIPS.ROTATE_180, 4: FLIPS.FLIP_TOP_BOTTOM,
        5: FLIPS.TRANSPOSE, 6: FLIPS.ROTATE_90, 7: FLIPS.TRANSVERSE, 8: FLIPS.ROTATE_270}


def add_turned(devkit, name, im, orientation, ending, size, **options):
    "Store `im` so that the note `orientation` shows it upright."
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = im if UNDO[orientation] is None else im.transpose(UNDO[orientation])
    return devkit.add(name, [('thing', (5, 5, 35, 25))], stored, ending, size, exif=exif, **options)


def colour_in(img, box):
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    return img[y1 + 2:y2 - 2, x1 + 2:x2 - 2].reshape(-1, 3).mean(0)


@pytest.mark.parametrize('ending', ['.jpg', '.png', '.webp', '.tif'])
@pytest.mark.parametrize('size', [(120, 80), (96, 96)], ids=['oblong', 'square'])
@pytest.mark.parametrize('orientation', UNDO)
def test_every_exif_orientation(devkit, orientation, size, ending):
    im = frame(*size, (5, 5, 35, 25))
    quality = {} if ending in ('.png', '.tif') else {'quality': 95}
    path = add_turned(devkit, 'a', im, orientation, ending, size, **quality)
    devkit.split('a')
    ds = devkit.read()
    img, target = ds[0]
    assert img.shape == (size[1], size[0], 3)
    assert abs(colour_in(img, target['boxes'][0]) - BRIGHT).max() < 12
    assert abs(img.astype(int) - np.asarray(im)).mean() < 3
    assert (read_image(path) == img).all()  # prediction and the app read without an annotation
    assert find_faults(ds, progress=False) == {}  # what inspection asks
    x, t = DetectionDataset(ds, plain_transform(64), 64)[0]  # what training and evaluation see
    seen = colour_in(x.permute(1, 2, 0).numpy() * 255, t['boxes'][0])
    assert abs(seen - BRIGHT).max() < 12


def test_the_app_shows_the_image_as_a_viewer_does(devkit):
    from yolov3_nb.app import read_upload
    im = frame(1000, 900, (50, 50, 350, 250))  # shown as large as it is
    for orientation in UNDO:
        path = add_turned(devkit, f'a{orientation}', im, orientation, '.png', im.size)
        img, hw = read_upload(str(path))
        assert hw == (900, 1000) and (img == np.asarray(im)).all()


def test_boxes_on_the_stored_pixels_are_refused(devkit):
    "The size in the XML gives away a tool that ignored the note; another size is another fault."
    add_turned(devkit, 'a', frame(120, 80), 6, '.jpg', (80, 120))
    add_turned(devkit, 'b', frame(120, 80), 6, '.jpg', (121, 80))
    devkit.split('a', 'b')
    ds = devkit.read()
    with pytest.raises(InputError, match='EXIF note.*remove the note'):
        ds[0]
    with pytest.raises(InputError, match='has 120×80 pixels, but its annotation says 121×80'):
        ds[1]
    assert list(find_faults(ds, progress=False)) == [0, 1]


# file names, endings, lines of a split

NAMES = ['IMG 01 (1)', 'a  b', 'x.y', 'número 1', "it's", '[1]*', 'photo 0']


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('flag', ['', ' 1', '  -1', '\t0', ' '])
def test_names_with_spaces_and_signs(devkit, name, flag):
    devkit.add(name)
    devkit.split(f'{name}{flag}')
    ds = devkit.read()
    assert ds.ids == [name] and only(ds)[1] == [EDGES]


@pytest.mark.parametrize('ending', ['.bmp', '.webp', '.tif', '.tiff', '.gif', '.ppm', '.jpeg',
                                    '.png', '.Jpg', '.JPEG', '.PnG', '.TIF', '.WebP', '.BMP'])
def test_every_ending_in_any_case(devkit, ending):
    devkit.add('a', ending=ending)
    devkit.split('a')
    img, boxes = only(devkit.read())
    assert img.shape == (96, 96, 3) and boxes == [EDGES]
    assert abs(colour_in(img, EDGES) - BRIGHT).max() < 12


def test_of_several_files_with_one_name_the_jpeg_is_read(devkit):
    devkit.add('a', im=Image.new('RGB', (96, 96)))
    path = devkit.add('a', ending='.JPG')
    devkit.folder.joinpath('JPEGImages', 'a.txt').write_text('not an image')
    devkit.split('a')
    assert devkit.read().image_path(0) == path


@pytest.mark.parametrize('line', ['a.png', 'a.PNG', 'a.jpg', 'a.xml', 'a.png 1',
                                  'JPEGImages/a', 'JPEGImages/a.png',
                                  '/data/VOCmine/JPEGImages/a.jpg', 'C:\\VOC\\JPEGImages\\a.jpg',
                                  'Annotations/a.xml'])
def test_lines_with_an_ending_or_a_folder(devkit, line):
    devkit.add('a')
    devkit.split(line)
    assert devkit.read().ids == ['a'] and only(devkit.read())[1] == [EDGES]


def test_an_ending_that_belongs_to_the_name_stays(devkit):
    devkit.add('a.png')  # a.png.png and a.png.xml
    devkit.split('a.png')
    assert devkit.read().ids == ['a.png']


@pytest.mark.parametrize('line', ['../a', 'other/a', '/etc/passwd', 'JPEGImages/', '.a', 'b\\a'])
def test_lines_that_lead_elsewhere_are_refused(devkit, line):
    devkit.add('a')
    devkit.split(line)
    with pytest.raises(InputError, match='write ids'):
        devkit.read()


# the size in the annotation

@pytest.mark.parametrize('size', [(0, 0), None], ids=['0 × 0', 'none'])
def test_without_a_size_the_image_gives_it(devkit, size):
    path = devkit.add('a', [('thing', (10, 10, 121, 40))], frame(120, 80), size=size)
    devkit.split('a')
    ds = devkit.read()
    with pytest.warns(InputWarning, match=r'a\.xml does not give the size'):
        img, boxes = only(ds)
    assert img.shape == (80, 120, 3) and boxes == [[9, 9, 120, 40]]  # clipped to the true size
    with pytest.warns(InputWarning):
        assert find_faults(ds, progress=False) == {}
    with pytest.raises(InputError, match='size'):  # without the image nobody knows it
        read_annotation(ds.annotation_path(0), ('thing',))
    path.unlink()
    with pytest.warns(InputWarning), pytest.raises(InputError, match='does not exist'):
        devkit.read().target(0)


@pytest.mark.parametrize('size', [(0, 96), (96, 0), (-96, -96), (95, 96), (96.5, 96)])
def test_a_wrong_size_is_refused(devkit, size):
    devkit.add('a', size=size)
    devkit.split('a')
    with pytest.raises(InputError, match='a.(xml|png)'):
        devkit.read()[0]


# coordinates

COORDINATES = {
    'ok': (BOX, EDGES),
    'zero': ((0, 0, 50, 40), [0, 0, 50, 40]),
    'floats': ((10.4, 10.4, 50.25, 40.75), [9.4, 9.4, 50.25, 40.75]),
    'one over': ((10, 10, 97, 40), [9, 9, 96, 40]),
    'a hair over': ((10, 10, 96.0000001, 40), [9, 9, 96, 40]),
    'one pixel': ((10, 10, 10, 10), [9, 9, 10, 10]),
    'exponent': (('1e1', '+10', '5.e1', '.4e2'), EDGES),
}
NO_COORDINATES = {
    'negative': ((-1, 10, 50, 40), 'outside its image'),
    'two over': ((10, 10, 98, 40), 'outside its image'),
    'flat': ((10, 10, 50, 9), 'without area'),
    'swapped': ((50, 40, 10, 10), 'without area'),
    'nan': ((10, 'nan', 50, 40), 'should hold a number'),
}


@pytest.mark.parametrize('case', COORDINATES)
def test_coordinates(devkit, case):
    box, edges = COORDINATES[case]
    devkit.add('a', [('thing', box)])
    devkit.split('a')
    assert np.allclose(only(devkit.read())[1], [edges], atol=1e-5)


@pytest.mark.parametrize('case', NO_COORDINATES)
def test_coordinates_that_cannot_be(devkit, case):
    box, fault = NO_COORDINATES[case]
    devkit.add('a', [('thing', BOX), ('thing', box)])
    devkit.split('a')
    with pytest.raises(InputError, match=f'a.xml, object 2.*{fault}'):
        devkit.read()[0]


def test_no_flag_means_not_difficult(devkit):
    devkit.add('a')
    xml = devkit.folder/'Annotations'/'a.xml'
    xml.write_text(xml.read_text().replace('<difficult>0</difficult>', ''))
    devkit.split('a')
    assert devkit.read()[0][1]['difficult'].tolist() == [False]


# classes

def test_a_subset_of_the_classes(devkit):
    for i in range(4):
        devkit.add(f's{i}', [('cell', BOX), ('dust', (60, 60, 80, 80))])
    devkit.add('dust only', [('dust', BOX)])
    devkit.split('s0', 's1', 's2', 's3', 'dust only')
    says = "object 2 is of the unknown class 'dust'.*other_classes='ignore'"
    with pytest.raises(InputError, match=says):
        devkit.read(classes=('cell',))[0]
    ds = devkit.read(classes=('cell',), other_classes='ignore')
    assert find_faults(ds, progress=False) == {} and len(without_bad(ds, progress=False)) == 5
    for i in range(4):
        assert ds[i][1]['labels'].tolist() == [0] and only(ds, i)[1] == [EDGES]
    assert ds[4][1]['boxes'].shape == (0, 4)  # it stays, as background
    assert set(census(ds).name) == {'cell'}
    with pytest.raises(InputError, match="'refuse' or 'ignore'"):
        devkit.read(other_classes='drop')


def test_an_ignored_object_still_needs_a_name(devkit):
    devkit.add('a', [('', BOX)])
    devkit.split('a')
    with pytest.raises(InputError, match='no <name>'):
        devkit.read(other_classes='ignore')[0]


@pytest.mark.parametrize('classes', ['thing', ('thing', 'thing'), ['a', 'thing', 'a']])
def test_classes_that_cannot_be(devkit, classes):
    devkit.add('a')
    devkit.split('a')
    with pytest.raises(InputError, match='one string|more than once'):
        devkit.read(classes=classes)
    with pytest.raises(InputError, match='one string|more than once'):
        read_annotation(devkit.folder/'Annotations'/'a.xml', classes)


# what is there twice

def test_an_object_that_is_there_twice_is_taken_once(devkit):
    near = (10, 10, 50, 41)
    objects = [('thing', BOX), ('other', BOX), ('thing', BOX, 1), ('thing', near), ('thing', BOX)]
    devkit.add('a', objects)
    devkit.split('a')
    ds = devkit.read(classes=('thing', 'other'))
    with pytest.warns(InputWarning, match='a.xml, object [35] is there twice') as said:
        target = ds.target(0)
    assert len(said) == 2
    assert target['labels'].tolist() == [0, 1, 0]
    assert target['boxes'].tolist() == [EDGES, EDGES, [9, 9, 50, 41]]
    assert target['difficult'].tolist() == [False, False, False]


def test_an_image_that_is_named_twice_is_there_once(devkit):
    for name in 'abc':
        devkit.add(name)
    devkit.split('a', 'b', name='train')
    devkit.split('b', 'c', name='val')
    devkit.split('a', 'c', 'a.png', 'c 1', name='twice')
    for splits, ids in ((('train', 'train'), 'ab'), (('train', 'val'), 'abc'), (('twice',), 'ac')):
        with pytest.warns(InputWarning, match='named more than once'):
            ds = devkit.read(*splits)
        assert ds.ids == list(ids) and len(ds) == len(ids)
    assert read_split(devkit.folder, 'twice') == ['a', 'c', 'a', 'c']  # to look for faults
    assert devkit.read('train').ids == ['a', 'b']


def test_images_of_one_name_in_two_years_are_two(tmp_path):
    for year in ('mine', 'yours'):
        d = Devkit(tmp_path/'data'/'x') if year == 'mine' else Devkit(tmp_path/'data'/'y')
        d.add('a')
        d.split('a')
        d.folder.rename(tmp_path/'data'/f'VOC{year}')
    ds = VOCDataset(tmp_path/'data', [('mine', 'train'), ('yours', 'train')], ('thing',))
    assert ds.ids == ['a', 'a'] and ds.image_path(0) != ds.image_path(1)


# what a mutation of the code once survived

def test_the_largest_anchors_belong_to_the_coarsest_grid():
    "Else `--anchors auto` would ruin a run without a word."
    from yolov3_nb.anchors import kmeans_anchors
    sides = torch.tensor([[10., 10], [12, 10], [14, 10], [50, 50], [52, 50], [54, 50], [200, 200],
                          [204, 200], [208, 200]])
    areas = kmeans_anchors(sides).prod(-1)
    assert (areas[0] > areas[1].max()).all() and (areas[1] > areas[2].max()).all()
    assert (areas.sort(-1).values == areas).all()


@pytest.mark.parametrize('name', ['wsd', 'cosine', 'constant'])
def test_a_schedule_climbs_for_its_share_of_the_steps(name):
    from yolov3_nb.training import make_schedule
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=.8)
    schedule = make_schedule(optimizer, name, .8, 16, .5)
    rates = []
    for _ in range(16):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        schedule.step()
    assert np.allclose(rates[:8], .1 * np.arange(1, 9)) and max(rates) == pytest.approx(.8)


@pytest.mark.parametrize('side, far', [(0, -9), (1, -9), (2, 109), (3, 39)])
def test_a_box_far_outside_is_refused_on_each_side_of_an_oblong_image(side, far):
    from yolov3_nb.formats import clip_box
    box = [10., 10, 20, 20]
    assert clip_box(tuple(box), (30, 100), edge=1.) == (10, 10, 20, 20)
    box[side] = far
    with pytest.raises(InputError, match='outside its image of 100×30'):
        clip_box(tuple(box), (30, 100), edge=1.)


# images without objects, classes without images

def tiny_model(classes):
    from yolov3_nb.model import YOLOv3
    torch.manual_seed(0)
    return YOLOv3(classes, .0625, image_size=64)


def test_background_only(devkit):
    "An image without objects trains: the loss is finite, and it falls."
    from yolov3_nb.anchors import ANCHORS, encode, scale_anchors
    from yolov3_nb.loss import original_loss
    names = [f'b{i}' for i in range(4)]
    for name in names:
        devkit.add(name, [], frame(box=None))
    devkit.split(*names)
    ds = devkit.read()
    assert len(census(ds)) == 0 and find_faults(ds, progress=False) == {}
    data = DetectionDataset(ds, plain_transform(64), 64, mosaic=1., mixup=1.)
    xb, targets = collate([data[i] for i in range(4)])
    assert [t['boxes'].shape for t in targets] == [(0, 4)] * 4
    anchors = scale_anchors(ANCHORS['voc'], 64)
    encoded = encode(targets, anchors, 64)
    assert all((e[..., 4] == 0).all() for e in encoded)
    model = tiny_model(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = original_loss(model(xb), encoded, anchors)['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]


def test_a_class_that_the_test_split_lacks(devkit):
    "Its AP is not measured, and the mean is over the others."
    from yolov3_nb.evaluation import ap_metrics, evaluate, flatten
    classes = ('red', 'green', 'blue')
    for i in range(4):
        devkit.add(f't{i}', [(classes[i % 2], BOX)])
    devkit.split('t0', 't1', 't2', 't3')
    ds = devkit.read(classes=classes)
    truth = flatten([ds.annotation(i) for i in range(4)])
    found = ap_metrics(truth | {'scores': torch.ones(4)}, truth, classes)
    assert found['ap50'] == {'red': 1, 'green': 1, 'blue': None} and found['map50'] == 1
    model = tiny_model(3)
    model.class_names = classes
    metrics = evaluate(model, ds, progress=False)
    assert metrics['ap50']['blue'] is None and metrics['map50'] is not None
    json.loads(to_json(metrics))  # nothing in it is NaN


def test_a_data_set_with_annotations_alone_is_evaluated(devkit):
    "`target` is asked for only where there is no `annotation`."
    from yolov3_nb.evaluation import evaluate
    devkit.add('a')
    devkit.split('a')
    ds = devkit.read()

    class Annotated(torch.utils.data.Dataset):
        classes, ids = ds.classes, ds.ids

        def __len__(self):
            return 1

        def __getitem__(self, i):
            return ds[i]

        def annotation(self, i):
            return ds.annotation(i) | {'image_id': 'a'}

    model = tiny_model(1)
    model.class_names = ds.classes
    assert evaluate(model, Annotated(), progress=False)['n_images'] == 1


# images that must not turn black

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
DEEP = {
    '8 bits': np.round(RAMP * 255).astype(np.uint8),
    '10 bits': np.round(RAMP * 1023).astype(np.uint16),
    '12 bits': np.round(RAMP * 4095).astype(np.uint16),
    '16 bits': np.round(RAMP * 65535).astype(np.uint16),
    '32 bits': np.round(RAMP * 65535).astype(np.int32),
    'floats to 1': RAMP.astype(np.float32),
    'floats to 255': (RAMP * 255).astype(np.float32),
    'floats to 4095': (RAMP * 4095).astype(np.float32),
    'floats to 65535': (RAMP * 65535).astype(np.float32),
}
UNDECIDED = {
    'floats to 1.3': (RAMP * 1.3).astype(np.float32),
    'floats below 0': (RAMP * 2 - 1).astype(np.float32),
    'nan': np.where(RAMP > .5, np.nan, RAMP).astype(np.float32),
    'infinite': np.where(RAMP > .5, np.inf, RAMP).astype(np.float32),
    'below 0': np.round(RAMP * 4095 - 1000).astype(np.int32),
}


@pytest.mark.parametrize('case', DEEP)
def test_deep_images_are_scaled(tmp_path, case):
    Image.fromarray(DEEP[case]).save(tmp_path/'a.tif')
    img = read_image(tmp_path/'a.tif')
    assert img.shape == (8, 8, 3) and abs(img[..., 0] - RAMP * 255).max() <= 1


@pytest.mark.parametrize('case', UNDECIDED)
def test_what_is_white_cannot_be_known(tmp_path, case):
    Image.fromarray(UNDECIDED[case]).save(tmp_path/'a.tif')
    with pytest.raises(InputError, match='a.tif holds pixels .*save it with 8 bits'):
        read_image(tmp_path/'a.tif')


def int16_tiff(values):
    "A TIFF of signed 16-bit integers, which Pillow reads and does not write."
    import struct
    h, w = values.shape
    pixels = values.astype('<i2').tobytes()
    tags = [(256, 3, w), (257, 3, h), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8),
            (277, 3, 1), (278, 3, h), (279, 4, len(pixels)), (339, 3, 2)]
    entries = b''.join(struct.pack('<HHII', tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack('<H', len(tags)) + entries + struct.pack('<I', 0)
    return b'II*\0' + struct.pack('<I', 8 + len(pixels)) + pixels + directory


def test_signed_integers(tmp_path):
    (tmp_path/'a.tif').write_bytes(int16_tiff(np.round(RAMP * 4095)))
    assert abs(read_image(tmp_path/'a.tif')[..., 0] - RAMP * 255).max() <= 1
    (tmp_path/'a.tif').write_bytes(int16_tiff(np.round(RAMP * 4095 - 1000)))
    with pytest.raises(InputError, match='below zero'):
        read_image(tmp_path/'a.tif')


@pytest.mark.parametrize('ending', ['.png', '.tif'])
def test_colours_of_16_bits(tmp_path, ending):
    import cv2
    grey = np.round(RAMP * 65535).astype(np.uint16)
    colours = np.stack([grey, grey // 2, grey // 4], -1)
    cv2.imwrite(str(tmp_path/f'a{ending}'), colours[..., ::-1])
    assert abs(read_image(tmp_path/f'a{ending}') - np.round(colours / 257)).max() <= 1
    cv2.imwrite(str(tmp_path/f'a{ending}'), colours // 16)  # 12 bits, in the lower ones
    with pytest.raises(InputError, match='uses only the lowest'):
        read_image(tmp_path/f'a{ending}')


# files that are meant to do harm, numbers that are none

@pytest.mark.parametrize('w, h', [(1, 39_000_000), (39_000_000, 1), (40_000, 3)])
def test_a_long_side_is_refused_before_decoding(tmp_path, monkeypatch, w, h):
    import struct

    def chunk(kind, data):
        checksum = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + checksum

    pixels = zlib.compress(bytes(min(h, 1000) * (1 + w if w < 1000 else 1)), 1)
    header = struct.pack('>IIBBBBB', w, h, 8, 0, 0, 0, 0)
    png = chunk(b'IHDR', header) + chunk(b'IDAT', pixels) + chunk(b'IEND', b'')
    (tmp_path/'a.png').write_bytes(b'\x89PNG\r\n\x1a\n' + png)
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, 'load', lambda im: decoded.append(im))
    with pytest.raises(InputError, match='32,767 on a side'):
        read_image(tmp_path/'a.png')
    assert not decoded


def test_a_result_that_is_no_number_is_not_written(tmp_path):
    path = tmp_path/'metrics.json'
    write_json(path, {'map50': .4})
    for value in (math.nan, math.inf, -math.inf, np.float64('nan')):
        with pytest.raises(InputError, match=r'metrics.json.*not finite .per_class\[1\]'):
            write_json(path, {'per_class': [.5, value]})
    assert read_json(path) == {'map50': .4} and [p.name for p in tmp_path.iterdir()] == [path.name]
