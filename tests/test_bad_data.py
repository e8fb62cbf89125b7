"""Broken data sets: each ends in one sentence, goes on without the bad picture where asked, and
never in a wrong box."""
import contextlib
import decimal
import io
import json
import os
import random
import re
import shutil
import signal
import struct
import warnings
import zlib
from pathlib import Path
from xml.dom import minidom
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from yolov3_nb import cli, flags, inspection, learner, recipe
from yolov3_nb.augment import DetectionDataset, collate, test_transform as plain_transform
from yolov3_nb.data import (
    InputError, VOCDataset, find_devkit, find_faults, read_annotation, read_image, without_bad)
from yolov3_nb.toyvoc import VOC_CLASSES

OBJECT = '''  <object>
    <name>{0}</name>
    <truncated>{1}</truncated>
    <difficult>{2}</difficult>{3}
    <bndbox>
      <xmin>{4}</xmin>
      <ymin>{5}</ymin>
      <xmax>{6}</xmax>
      <ymax>{7}</ymax>
    </bndbox>
  </object>
'''
PART = ('\n    <part>\n      <name>head</name>\n      '
        '<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox>\n    </part>')
SIZES = {'1': (60, 40), '2': (60, 40), '3': (48, 64), '4': (33, 31), '5': (80, 50), '6': (60, 40)}

def annotation(i, w, h):
    objects = [('dog', 0, 1, '', 1, 1, w // 2, h), ('person', 1, 0, PART, 5, 4, w, h - 3),
               ('cat', 0, 0, '', '2.5', '7.25', w - 0.5, '20')]
    return (f'<annotation>\n  <folder>VOC2007</folder>\n  <filename>{i}.jpg</filename>\n  <size>\n '
            f'   <width>{w}</width>\n'
            f'    <height>{h}</height>\n    <depth>3</depth>\n  </size>\n'
            + ''.join(OBJECT.format(*o) for o in objects[:int(i) % 3 + 1]) + '</annotation>\n')

@pytest.fixture(scope='module')
def base():
    "A sound devkit of six pictures, as {path in VOC2007: bytes}."
    rng, files = np.random.default_rng(0), {}
    for i, (w, h) in SIZES.items():
        im = Image.fromarray(rng.integers(0, 256, (h // 4, w // 4, 3),
                                          dtype=np.uint8)).resize((w, h))
        im.save(out := io.BytesIO(), 'JPEG', quality=90, progressive=i == '2')
        files |= {f'JPEGImages/{i}.jpg': out.getvalue(),
                  f'Annotations/{i}.xml': annotation(i, w, h).encode()}
    for split, ids in dict(train='123', val='4', trainval='1234', test='56').items():
        files[f'ImageSets/Main/{split}.txt'] = '\n'.join(ids).encode()
    return files

def lay(folder, files):
    for name, content in files.items():
        path = folder/'VOCdevkit'/'VOC2007'/name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder

@pytest.fixture
def root(tmp_path, base):
    return lay(tmp_path/'data', base)

class Hang(BaseException):
    "Nothing that catches Exception may swallow it."

@contextlib.contextmanager
def at_most(seconds):
    "A hang becomes a failure."
    def stop(*_):
        raise Hang(f'not done after {seconds} s')
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

def is_sentence(text):
    assert text and '\n' not in text and 'Traceback' not in text and len(text) < 1000, text
    return text

# What can be wrong with picture 2. A change is (old, new) in its XML, the bytes of its XML or
# picture, or a function of the two paths.
def png_that_claims(w, h):
    def chunk(kind, data):
        return (struct.pack('>I', len(data)) + kind + data
                + struct.pack('>I', zlib.crc32(kind + data)))
    head = struct.pack('>IIBBBBB', w, h, 8, 0, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(b''))
            + chunk(b'IEND', b''))

def jpeg(w, h):
    return lambda xml, jpg: Image.new('RGB', (w, h)).save(jpg)
def pipe(path):
    path.unlink(), os.mkfifo(path)
def folder(path):
    path.unlink(), path.mkdir()
def loop(path):
    path.unlink(), path.symlink_to(path.name)
def huge(path):
    os.truncate(path, 2**25)

LAUGHS = '<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>\n<annotation>'
STEAL = '<!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/hostname">]>\n<annotation>'
XML = {
    'cut': (lambda text: text[:len(text) // 2], 'not well-formed'),
    'no bytes': (lambda text: '', 'not well-formed'),
    'another document': (lambda text: '<html/>', 'no VOC <annotation>'),
    'zeros': (lambda text: text + '\0', 'not well-formed'),
    'unknown encoding': (lambda text: '<?xml version="1.0" encoding="klingon"?>' + text,
                         'not well-formed'),
    'entities': (('<annotation>', LAUGHS), 'entities'),
    'outer entity': (('<annotation>', STEAL), 'entities'),
    'another picture': (('2.jpg', '3.jpg'), 'belongs to 3.jpg'),
    'unknown class': (('dog', 'dgo'), "unknown class 'dgo' .did you mean 'dog'"),
    'no name': (('<name>dog</name>', ''), 'no <name>'),
    'two names': (('<name>dog</name>', '<name>dog</name><name>cat</name>'), '2 <name>'),
    'no box': (('bndbox>', 'box>'), 'no <bndbox/xmin>'),
    'no corner': (('<ymax>40</ymax>', ''), 'no <bndbox/ymax>'),
    'two boxes': (('<bndbox>', '<bndbox><xmin>9</xmin></bndbox><bndbox>'), '2 <bndbox/xmin>'),
    'two corners': (('<xmax>30</xmax>', '<xmax>3</xmax><xmax>30</xmax>'), '2 <bndbox/xmax>'),
    'a box of no object': (('</annotation>', '<Object><bndbox/></Object></annotation>'),
                           '1 <bndbox>'),
    'nan': (('>30<', '>nan<'), "'nan' where <bndbox/xmax>"),
    'infinite': (('>30<', '>1e999<'), "'1e999'"),
    'underscore': (('>30<', '>3_0<'), "'3_0'"),
    'other digits': (('>30<', '>３０<'), 'should hold a number'),
    'words': (('>30<', '>thirty<'), 'thirty'),
    'nothing': (('>30<', '> <'), 'no <bndbox/xmax>'),
    'right of the picture': (('>30<', '>62<'), 'outside its image'),
    'below the picture': (('>40</ymax>', '>42</ymax>'), 'outside its image'),
    'left of the picture': (('<xmin>1<', '<xmin>-1<'), 'outside its image'),
    'above the picture': (('<ymin>1<', '<ymin>-1<'), 'outside its image'),
    'in the pixel beside the picture': (
        lambda text: text.replace('<xmin>1<', '<xmin>61.5<', 1).replace('>30<', '>61<', 1),
        'outside its image'),
    'in the pixel below the picture': (lambda text: text.replace('<ymin>1<', '<ymin>41.5<',
                                                                 1).replace(
                                                                     '>40</ymax>', '>41</ymax>', 1),
                                       'outside its image'),
    'turned round': (('>30<', '>0<'), 'without area'),
    'flat': (('<ymax>40<', '<ymax>0<'), 'without area'),
    'a flag': (('<difficult>1<', '<difficult>maybe<'), "'maybe' where <difficult>"),
    'no width': (('<width>60</width>', ''), 'no <size/width>'),
    'two sizes': (('</size>', '</size><size><width>60</width></size>'), '2 <size/width>'),
    'size 0': (('<width>60<', '<width>0<'), 'the size 0×40'),
    'half a pixel': (('<width>60<', '<width>60.5<'), 'the size 60.5×40'),
    'another size': (('<width>60<', '<width>61<'),
                     'has 60×40 pixels, but its annotation says 61×40'),
}
FILES = {
    'no annotation': (lambda xml, jpg: xml.unlink(), 'The annotation .*2.xml does not exist'),
    'annotation a folder': (lambda xml, jpg: folder(xml), 'no file'),
    'annotation a pipe': (lambda xml, jpg: pipe(xml), 'no file'),
    'annotation a loop': (lambda xml, jpg: loop(xml), 'The annotation .*2.xml cannot be reached'),
    'annotation of 32 MB': (lambda xml, jpg: huge(xml), 'more than 16 MB'),
    'no picture': (lambda xml, jpg: jpg.unlink(), 'The image .*2.jpg does not exist'),
    'picture a folder': (lambda xml, jpg: folder(jpg), 'no file'),
    'picture a pipe': (lambda xml, jpg: pipe(jpg), 'no file'),
    'picture a loop': (lambda xml, jpg: loop(jpg), 'The image .*2.jpg cannot be reached'),
    'picture cut': (lambda xml, jpg: os.truncate(jpg, jpg.stat().st_size // 2), 'not a whole'),
    'picture of no bytes': (lambda xml, jpg: jpg.write_bytes(b''), 'not a whole'),
    'picture a page': (lambda xml, jpg: jpg.write_text('<html>' * 99), 'not a whole'),
    'picture a program': (lambda xml, jpg: jpg.write_text(
        '%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n'), 'of the known formats'),
    'a bomb': (lambda xml, jpg: jpg.write_bytes(png_that_claims(9_000, 9_000)),
               '9000×9000 pixels, more than'),
    'a larger bomb': (lambda xml, jpg: jpg.write_bytes(png_that_claims(60_000, 60_000)),
                      'more than the 80,000,000 pixels'),
    'picture of another size': (jpeg(60, 41), 'has 60×41 pixels, but its annotation says 60×40'),
}

def broken(root, name):
    "Do to picture 2 what `name` says, and give the pattern of what is said about it."
    base = find_devkit(root)
    xml, jpg = base/'Annotations'/'2.xml', base/'JPEGImages'/'2.jpg'
    change, pattern = (XML | FILES)[name]
    if name in FILES:
        change(xml, jpg)
    else:
        text = xml.read_text(encoding='utf-8')
        new = (change(text) if callable(change) else text.replace(*change)
               if change[0] in ('size>', 'bndbox>') else text.replace(*change, 1))
        assert new != text
        xml.write_text(new, encoding='utf-8')
    return pattern

@pytest.mark.parametrize('name', XML | FILES)
def test_a_bad_picture_is_one_sentence(root, name, capsys):
    pattern, ds = broken(root, name), VOCDataset(root, [('2007', 'train')])
    with at_most(60):
        with pytest.raises(InputError, match=pattern) as e:
            ds[1]
        assert '2.' in is_sentence(str(e.value))
        assert list(find_faults(ds, progress=False)) == [1]
        rest = without_bad(ds, progress=False)
        assert rest.ids == ['1', '3']
        assert [s[1]['image_id'] for s in rest] == ['1', '3']
        assert len(ds) == 3
    said = capsys.readouterr().err
    assert said.startswith('Left out 2: ') and is_sentence(said.strip()) and str(e.value) in said

@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P'])
def test_what_is_transparent_is_white(tmp_path, mode):
    im = Image.new(mode, (6, 4), {'RGBA': (0, 0, 0, 0), 'LA': (0, 0), 'P': 0}[mode])
    im.save(tmp_path/'a.png', **({'transparency': 0} if mode == 'P' else {}))
    assert (read_image(tmp_path/'a.png') == 255).all()

def test_broken_exif_turns_nothing(tmp_path, monkeypatch):
    def stumble(im):
        raise SyntaxError('not a TIFF file')  # as some releases of Pillow do
    monkeypatch.setattr(ImageOps, 'exif_transpose', stumble)
    Image.new('RGB', (6, 4)).save(tmp_path/'a.png')
    assert read_image(tmp_path/'a.png').shape == (4, 6, 3)

def test_a_box_one_pixel_outside_is_cut(root):
    xml = find_devkit(root)/'Annotations'/'2.xml'
    changes = ('<xmin>1<', '<xmin>0<'), ('<ymin>1<',
                                         '<ymin>0<'), ('>30<', '>61<'), ('>40</ymax>', '>41</ymax>')
    for old, new in changes:
        xml.write_text(xml.read_text().replace(old, new, 1))
    assert (read_annotation(xml)['boxes'][0].tolist() == [0, 0, 60, 40]
            == VOCDataset(root, [('2007', 'train')])[1][1]['boxes'][0].tolist())

def test_an_annotation_that_may_not_be_read(root, monkeypatch):
    def refuse(path):
        raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(Path, 'read_bytes', refuse)
    with pytest.raises(InputError, match='2.xml cannot be read .Permission denied') as e:
        VOCDataset(root, [('2007', 'train')])[1]
    is_sentence(str(e.value))

def test_all_faults_of_a_picture_are_found(root):
    base = find_devkit(root)
    text = (base/'Annotations'/'5.xml').read_text()
    (base/'Annotations'/'5.xml').write_text(
        text.replace('dog', 'dgo').replace('>cat<', '><').replace('<truncated>1', '<truncated>7'))
    (base/'JPEGImages'/'5.jpg').write_bytes(b'no')
    found = find_faults(VOCDataset(root, [('2007', 'test')]), progress=False)
    assert ([s.split(',')[1].split(' has')[0].split(' is')[0].strip() for s in found[0][:3]]
            == ['object 1', 'object 2', 'object 3'])
    assert len(found[0]) == 4 and 'not a whole' in found[0][3] and list(found) == [0]
    faults = []
    kept = read_annotation(base/'Annotations'/'5.xml', faults=faults)
    assert len(faults) == 3 and len(kept['boxes']) == 0
    with pytest.raises(InputError, match='object 1'):
        read_annotation(base/'Annotations'/'5.xml')

def test_nothing_left(root):
    for p in find_devkit(root).glob('JPEGImages/*'):
        p.write_bytes(b'')
    with pytest.raises(InputError, match='None of the 3 images') as e:
        without_bad(VOCDataset(root, [('2007', 'train')]), progress=False)
    is_sentence(str(e.value))

def split_is(content):
    return lambda path: path.write_bytes(content)

SPLITS = {
    'missing': (lambda path: path.unlink(),
                r"'train' cannot be read: .*there: test, trainval, val"),
    'folder': (folder, 'cannot be read'),
    'pipe': (pipe, 'cannot be read'),
    'empty': (split_is(b'\n \n'), 'names no image'),
    'climbs': (split_is(b'1\n../../../etc/passwd'), 'write ids'),
    'absolute': (split_is(b'/etc/passwd'), 'write ids'),
    'backslash': (split_is(b'sub\\1'), 'write ids'),
    'hidden': (split_is(b'.1'), 'write ids'),
    'zeros': (split_is(b'1\0'), 'write ids'),
    'endless id': (split_is(b'1' * 5000), 'write ids'),
    'two bytes a letter': (split_is('1\n2'.encode('utf-16')), 'cannot be read'),
    'a picture': (split_is(b'\xff\xd8\xff\xe0' * 9), 'cannot be read'),
}

@pytest.mark.parametrize('name', SPLITS)
def test_a_bad_split_file(root, name):
    change, pattern = SPLITS[name]
    change(find_devkit(root)/'ImageSets'/'Main'/'train.txt')
    with at_most(60), pytest.raises(InputError, match=pattern) as e:
        VOCDataset(root, [('2007', 'train')])
    is_sentence(str(e.value))

@pytest.mark.parametrize('content', [b'\xef\xbb\xbf1\r\n2\r\n', b'1 -1\n2  1\n\n'],
                         ids=['of Windows', 'with a column of flags'])
def test_a_split_file_that_is_only_odd(root, content):
    (find_devkit(root)/'ImageSets'/'Main'/'train.txt').write_bytes(content)
    assert VOCDataset(root, [('2007', 'train')]).ids == ['1', '2']

@pytest.mark.parametrize('where', ['nowhere', 'file', 'empty', 'x' * 300, '~nobody-at-all/x'])
def test_a_folder_that_is_no_devkit(tmp_path, where):
    (tmp_path/'file').write_text('')
    (tmp_path/'empty').mkdir()
    with pytest.raises(InputError, match='No devkit found: looked for .*yolov3_data') as e:
        VOCDataset(where if where[0] == '~' else tmp_path/where)
    is_sentence(str(e.value)[-300:])

UNUSUAL = {
    'grey': dict(mode='L', format='JPEG'),
    'cmyk': dict(mode='CMYK', format='JPEG'),
    'alpha': dict(mode='RGBA', format='PNG'),
    'grey and alpha': dict(mode='LA', format='PNG'),
    'palette': dict(mode='P', format='PNG'),
    'see-through palette': dict(mode='P', format='PNG', transparency=0),
    'bits': dict(mode='1', format='PNG'),
    '16 bits': dict(mode='I;16', format='PNG'),
    '32 bits': dict(mode='I', format='TIFF'),
    'floats': dict(mode='F', format='TIFF'),
    'webp': dict(mode='RGB', format='WEBP'),
}

@pytest.mark.parametrize('name', UNUSUAL)
def test_a_picture_that_is_only_unusual(root, name):
    how = dict(UNUSUAL[name])
    path, mode = find_devkit(root)/'JPEGImages'/'2.jpg', how.pop('mode')
    im = Image.open(path).convert('RGB')
    grey = np.asarray(im.convert('L'))
    im = Image.fromarray(grey.astype(np.uint16) * 257) if mode == 'I;16' else im.convert(mode)
    im.save(path, **how)
    img, target = VOCDataset(root, [('2007', 'train')])[1]
    assert img.shape == (40, 60, 3) and img.dtype == np.uint8 and len(target['boxes']) == 3
    if mode in ('L', 'LA', 'I;16', 'I', 'F'):
        assert abs(img[..., 0].astype(int) - grey).mean() < 4

@pytest.mark.parametrize('saw', ['stored', 'turned'])
def test_a_picture_that_wants_to_be_turned(root, saw):
    """EXIF says: turn by a quarter. Boxes belong to what a viewer shows; a size that is that of the
    stored pixels gives away that these do not."""
    path = find_devkit(root)/'JPEGImages'/'2.jpg'
    im, exif = Image.open(path).convert('RGB'), Image.Exif()
    exif[0x0112] = 6
    (im if saw == 'stored'
     else im.transpose(Image.Transpose.ROTATE_90)).save(path, exif=exif, quality=100, subsampling=0)
    assert read_image(path).shape == ((60, 40, 3) if saw == 'stored' else (40, 60, 3))
    ds = VOCDataset(root, [('2007', 'train')])
    if saw == 'stored':
        with pytest.raises(InputError, match='EXIF note') as e:
            ds[1]
        is_sentence(str(e.value))
    else:
        assert ds[1][0].shape == (40, 60, 3)
        assert abs(ds[1][0].astype(int) - np.asarray(im)).mean() < 3

def test_an_annotation_without_objects_goes_all_the_way(root):
    xml = find_devkit(root)/'Annotations'/'2.xml'
    text = xml.read_text()
    xml.write_text(text[:text.index('  <object>')] + '</annotation>')
    ds = VOCDataset(root, [('2007', 'train')])
    assert ds[1][1]['boxes'].shape == (0, 4) and not find_faults(ds, progress=False)
    from yolov3_nb.anchors import ANCHORS, encode, scale_anchors
    xb, targets = collate([DetectionDataset(ds, plain_transform(64), 64)[i] for i in range(3)])
    encoded = encode(targets, scale_anchors(ANCHORS['voc'], 64), 64)
    objects = [[int((e[i, ..., 4] == 1).sum()) for e in encoded] for i in range(3)]
    assert xb.shape == (3, 3, 64, 64) and objects[1] == [0, 0, 0] and min(objects[0]) > 0

def test_the_sentence_comes_through_a_worker_process(root):
    broken(root, 'picture cut')
    loader = torch.utils.data.DataLoader(VOCDataset(root, [('2007', 'train')]), batch_size=None,
                                         num_workers=1, collate_fn=lambda sample: 0)
    with pytest.raises(InputError) as e:
        list(loader)
    assert is_sentence(str(e.value)).startswith(str(root))

def command(main, *args):
    "Exit status, stdout, stderr of a command."
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(
            io.StringIO()) as err:
        try:
            main([str(a) for a in args])
        except SystemExit as e:
            return e.code, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()

def run(*args):
    return command(cli.data, *args)

def test_inspect_goes_on_past_faults_and_lists_them_all(root, tmp_path):
    broken(root, 'unknown class')
    base = find_devkit(root)
    (base/'Annotations'/'4.xml').unlink()
    (base/'JPEGImages'/'5.jpg').write_bytes(b'no')
    xml = (base/'Annotations'/'5.xml').read_text()
    (base/'Annotations'/'5.xml').write_text(xml.replace('>dog<', '>&lt;b&gt;<'))
    (base/'ImageSets'/'Main'/'test.txt').write_text('5\n6\n6\n1')
    code, out, err = run('inspect', root, '--page', tmp_path/'p.html')
    lines = [line for line in err.splitlines() if line.strip() and 'reading' not in line]
    wanted = ("unknown class 'dgo'", "unknown class '<b>'", '4.xml does not exist',
              '5.jpg is not a whole',
              'more than once in 2007_test: 1,', 'both in 2007_train and in 2007_test: 1,')
    assert code == 2 and len(lines) == len(wanted) + 1 and '6 in all' in lines[-1]
    assert all(any(w in line for line in lines) for w in wanted)
    page = (tmp_path/'p.html').read_text(encoding='utf-8')
    assert page.count('<li>') == 6 and '--classes' in page and 'dgo' in page and '<b>' not in page
    assert page.count('data:image/') >= 6
    assert 'src="http' not in page
    assert not list(tmp_path.glob('*.tmp'))

def test_inspect_of_sound_and_of_odd_folders(root, tmp_path):
    code, out, err = run('inspect', root/'VOCdevkit', '--page', tmp_path/'p.html')
    assert code == 0
    assert '2007_train' in out
    assert 'None: every annotation' in (tmp_path/'p.html').read_text()
    base = find_devkit(root)
    for xml in base.glob('Annotations/*.xml'):  # no object anywhere
        text = xml.read_text()
        if '  <object>' in text:
            xml.write_text(text[:text.index('  <object>')] + '</annotation>')
    assert run('inspect', root, '--page', tmp_path/'p.html')[0] == 0
    for p in base.glob('JPEGImages/*'):
        p.unlink()  # and no picture either
    code, out, err = run('inspect', base, '--page', tmp_path/'p.html')
    assert code == 2 and '6 in all' in err
    shutil.rmtree(base/'ImageSets')
    code, out, err = run('inspect', root, '--page', tmp_path/'q.html')
    assert code == 2 and 'cannot be read' in err and not (tmp_path/'q.html').exists()

def test_inspect_goes_on_past_a_broken_split(root):
    (find_devkit(root)/'ImageSets'/'Main'/'val.txt').write_text('')
    splits, faults = inspection.inspect_devkit(root, inspection.devkit_sets(root), progress=False)
    assert list(splits) == ['2007_train', '2007_test']
    assert len(faults) == 1
    assert 'names no image' in faults[0]
    with pytest.raises(InputError, match='names no image'):
        inspection.inspect_devkit(root, (('2007', 'val'),), progress=False)

def test_inspect_with_classes_of_ones_own(root, tmp_path):
    assert run('inspect', root, '--classes', 'person,cat,dog', '--split', '2007_trainval', '--page',
               tmp_path/'p.html')[0] == 0
    code, out, err = run('inspect', root, '--classes', 'cat', '--page', tmp_path/'p.html')
    assert code == 2
    assert '6 pictures' not in out
    assert 'dog, person' in (tmp_path/'p.html').read_text()

def test_a_page_is_not_written_over_somebodys_file(tmp_path):
    (tmp_path/'p.html').write_text('mine')
    pages = {tmp_path/'p.html': 'not written by this command',
             tmp_path/'no'/'p.html': 'cannot be written', tmp_path: 'not written by'}
    for page, says in pages.items():
        code, out, err = run('inspect', 'nowhere', '--page', page)  # said before anything is read
        assert code == 2 and says in is_sentence(err.strip())
    assert (tmp_path/'p.html').read_text() == 'mine'
    assert [p.name for p in tmp_path.iterdir()] == ['p.html']

@pytest.mark.parametrize('where', ['nowhere', 'x' * 300, '~nobody-at-all/x'])
def test_inspect_of_what_is_no_folder(tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    code, out, err = run('inspect', where)
    assert code == 2
    assert 'No devkit found' in err
    assert err.count('\n') == 1
    assert not list(tmp_path.iterdir())

def test_class_names(tmp_path):
    (tmp_path/'names').write_text('\ufeffa cat\n\ndog\n', encoding='utf-8')
    (tmp_path/'bytes').write_bytes(b'\xff\xfe')
    assert recipe.read_classes(str(tmp_path/'names')) == ('a cat', 'dog')
    many = [f'class number {n}' for n in range(80)]  # longer than any file name
    assert recipe.read_classes(','.join(many)) == tuple(many)
    for text, says in ((str(tmp_path/'bytes'), 'as text'), (', ,', 'no class'),
                       ('cat,dog,cat', "'cat' more than once")):
        with pytest.raises(InputError, match=says) as e:
            recipe.read_classes(text)
        is_sentence(str(e.value))

# The same by the commands that train and measure.
TINY = ['--preset', 'toy', '--width', '0.0625', '--size', '32', '--epochs', '1', '--batch', '2',
        '--workers', '0', '--ema', '0', '--accelerator', 'cpu', '--val', '2007_val',
        '--no-progress']

def split(root, **ids):
    for name, said in ids.items():
        (find_devkit(root)/'ImageSets'/'Main'/f'{name}.txt').write_text('\n'.join(said))

@pytest.mark.parametrize('where', ['nowhere', 'file', 'devkit'])
def test_training_on_bad_data_leaves_no_folder(root, tmp_path, monkeypatch, where):
    (tmp_path/'file').write_text('')
    split(root, train='')
    monkeypatch.chdir(tmp_path)
    there = sorted(tmp_path.iterdir())
    for out in ((), ('--out', 'a/b/c')):
        code, _, err = command(cli.train, '--data', root if where == 'devkit' else tmp_path/where,
                               *TINY, *out)
        assert code == 2 and is_sentence(err.strip()) and sorted(tmp_path.iterdir()) == there

@pytest.mark.parametrize('where', ['train', 'val', 'test'])
@pytest.mark.parametrize('name', XML | FILES)
def test_training_refuses_a_bad_picture_before_the_first_step(root, tmp_path, monkeypatch,
                                                              where, name):
    pattern = broken(root, name)
    split(root, **{'train': '13', 'val': '4', 'test': '56', where: '21'})
    monkeypatch.chdir(tmp_path)
    cache = '--no-cache' if name in FILES else '--cache'
    code, _, err = command(cli.train, '--data', root, *TINY, cache)
    assert code == 2
    assert re.search(pattern, is_sentence(err.strip()))
    assert [p.name for p in tmp_path.iterdir()] == [root.name]

def test_training_says_how_many_are_bad(root, tmp_path, monkeypatch):
    for i in '56':
        (find_devkit(root)/'JPEGImages'/f'{i}.jpg').write_bytes(b'no')
    monkeypatch.chdir(tmp_path)
    code, _, err = command(cli.train, '--data', root, *TINY)
    assert code == 2
    assert '5.jpg' in err
    assert 'and 1 more' in err
    assert '--skip_bad' in is_sentence(err.strip())

@pytest.mark.parametrize('name', XML | FILES)
def test_skip_bad_leaves_out_just_the_bad_picture(root, name, capsys):
    broken(root, name)
    dm = learner.make_data(flags.with_flags(recipe.PRESETS['toy'],
                                            flags.train_parser().parse_args(
                                                ['--data', str(root), *TINY, '--skip_bad'])))
    assert (dm.train_ds.ids, dm.val_ds.ids, dm.test_ds.ids) == (['1', '3'], ['4'], ['5', '6'])
    assert len(list(dm.train_dataloader())) == 1
    assert capsys.readouterr().err.count('Left out ') == 1

def test_skip_bad_trains_and_measures_without_them(root, tmp_path, monkeypatch):
    base = find_devkit(root)
    broken(root, 'picture cut')
    text = (base/'Annotations'/'5.xml').read_text()
    (base/'Annotations'/'5.xml').write_text(text.replace('dog', 'dgo'))
    monkeypatch.chdir(tmp_path)
    code, _, err = command(cli.train, '--data', root, *TINY, '--skip_bad', '--out', 'run')
    assert code == 0
    assert ([line.split(':')[0] for line in err.splitlines() if 'Left' in line]
            == ['Left out 2', 'Left out 5'])
    data = json.loads(Path('run/metrics.json').read_text())['data']
    assert (data['n_train'], data['n_val'], data['n_test']) == (2, 1, 1)
    assert Path('run/report.html').exists()
    measure = 'run/weights', '--data', root, '--results', 'r'
    code, _, err = command(cli.evaluate_weights, '--weights', *measure)
    assert code == 2 and "'dgo'" in is_sentence(err.strip()) and not Path('results').exists()
    code, _, err = command(cli.evaluate_weights, '--weights', *measure, '--skip_bad')
    assert code == 0
    assert 'Left out 5: ' in err
    assert json.loads(Path('results/r.json').read_text())['data']['n_test'] == 1

# Three hundred devkits that chance has broken.
def only(node, tag):
    found = [c for c in node.childNodes if c.nodeType == c.ELEMENT_NODE and c.tagName == tag]
    assert len(found) <= 1, f'{tag} stands there {len(found)} times'
    return found[0] if found else None

def text_of(node):
    if node is None:
        return ''
    return ''.join(c.data if c.nodeType in (c.TEXT_NODE, c.CDATA_SECTION_NODE) else text_of(c)
                   for c in node.childNodes).strip()

def independent(data, image_size):
    """What the XML says, by another parser and in decimal numbers: labels, difficult flags, boxes,
    size, and how many objects; one that is there twice is given once."""
    root = minidom.parseString(data).documentElement
    def number(node, tag):
        return decimal.Decimal(text_of(only(node, tag)))
    h, w = ((number(only(root, 'size'), k) for k in ('height', 'width')) if only(root, 'size')
            else image_size)
    if h == w == 0:
        h, w = image_size
    objects = [c for c in root.childNodes if c.nodeType == c.ELEMENT_NODE and c.tagName == 'object']
    assert len(root.getElementsByTagName('object')) == len(objects)
    boxes, kept = [], []
    for o in objects:
        x1, y1, x2, y2 = (number(only(o, 'bndbox'), k) for k in ('xmin', 'ymin', 'xmax', 'ymax'))
        assert x1 >= 0 and y1 >= 0 and x2 <= w + 1 and y2 <= h + 1
        box = [float(v) for v in (max(x1 - 1, 0), max(y1 - 1, 0), min(x2, w), min(y2, h))]
        if (text_of(only(o, 'name')), box) in [(text_of(only(k, 'name')), b)
                                               for k, b in zip(kept, boxes)]:
            continue
        boxes.append(box)
        kept.append(o)
    return [text_of(only(o, 'name')) for o in kept], [text_of(only(o, 'difficult')) == '1'
                                                      for o in kept], boxes, (int(h), int(w)), len(
                                                          objects)

def flip(rng, data):
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)

def cut(rng, data):
    return data[:rng.randrange(len(data))]

def drop(rng, data):
    a = rng.randrange(len(data))
    return data[:a] + data[a + rng.randrange(1, 60):]

def digit(rng, data):
    "Another character for a digit: the file stays well-formed."
    places = [i for i, b in enumerate(data) if chr(b).isdigit()]
    if not places:
        return flip(rng, data)
    i = rng.choice(places)
    return (data[:i] + rng.choice(('0', '7', '9', '99', '-', '.', 'e', '_', ' ', '')).encode()
            + data[i + 1:])

def lines(rng, data):
    "Lines left out, twice there, or in another order."
    rows = data.split(b'\n')
    i, j = rng.randrange(len(rows)), rng.randrange(len(rows))
    kind = rng.randrange(4)
    if kind == 0:
        del rows[i]
    elif kind == 1:
        rows.insert(j, rows[i])
    elif kind == 2:
        rows[i], rows[j] = rows[j], rows[i]
    else:
        rows[min(i, j):max(i, j)] = []
    return b'\n'.join(rows)

def tags(rng, data):
    "Another name for a tag, or another class, at both ends."
    names = ('object Object,bndbox box,xmin xmax,ymax ymin,part object,object part,dog cat,size '
             'bndbox,name part,difficult truncated')
    old, new = rng.choice(names.split(',')).encode().split()
    return data.replace(old, new, rng.choice((1, 2, 4, -1)))

def mutated(base, rng):
    "The files of the base after one to three mishaps."
    files = dict(base)
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice(('Annotations/', 'Annotations/', 'Annotations/', 'JPEGImages/',
                           'JPEGImages/', 'ImageSets/'))
        name, other = (rng.choice([n for n in files if n.startswith(kind)]) for _ in range(2))
        if rng.random() < .15:
            files[name], files[other] = files[other], files[name]
        elif rng.random() < .05:
            del files[name]
        elif files[name]:
            ways = ((flip, cut, drop, digit, digit, lines, lines, tags) if kind == 'Annotations/'
                    else (flip, cut, drop))
            files[name] = rng.choice(ways)(rng, files[name])
        if not any(n.startswith(kind) for n in files):
            break
    return files

CASES, SEED = 300, 2007

def test_300_mutated_devkits(base, tmp_path):
    taken = refused = splits = 0
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow's, about broken EXIF and the like
        for case in range(CASES):
            rng = random.Random(f'{SEED} {case}')
            files = mutated(base, rng)
            root = lay(tmp_path/str(case), files)
            with at_most(60):
                for split in ('train', 'val', 'test'):
                    try:
                        ds = VOCDataset(root, [('2007', split)])
                    except InputError as e:
                        is_sentence(str(e))
                        splits += 1
                        continue
                    bad = find_faults(ds, progress=False)
                    for i in range(len(ds)):
                        try:
                            img, target = ds[i]
                        except InputError as e:
                            assert is_sentence(str(e)) == bad.get(i, [None])[0], (case, i, bad)
                            refused += 1
                            continue
                        data = files[f'Annotations/{ds.ids[i]}.xml']
                        names, difficult, boxes, size, objects = independent(data, img.shape[:2])
                        assert i not in bad, (case, i, bad)
                        assert img.shape == (*size, 3), (case, i, img.shape, size)
                        assert img.dtype == np.uint8, (case, i)
                        assert ([VOC_CLASSES[n] for n in target['labels']] == names
                                and target['difficult'].tolist() == difficult), (case, i)
                        assert np.allclose(target['boxes'].numpy(),
                                           np.array(boxes, dtype=np.float32).reshape(-1, 4),
                                           atol=1e-4), (case, i)
                        # none was lost
                        assert data.count(b'<bndbox') == objects + data.count(b'<part>'), (case, i)
                        said = text_of(only(minidom.parseString(data).documentElement, 'filename'))
                        assert (said == f'{ds.ids[i]}.jpg'
                                or f'JPEGImages/{said}' not in files), (case, i)
                        taken += 1
            if case % 150 == 0:
                with at_most(300):
                    assert run('inspect', root, '--page', tmp_path/f'{case}.html')[0] in (0, 2)
            shutil.rmtree(root)
    assert taken > 900 and refused > 200 and splits > 20  # the mishaps hit, and not everything
