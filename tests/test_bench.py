"The batch form of augmentation, the bench, and the page of records."
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from yolov3_nb.augment import cut_boxes
from yolov3_nb.bench import Pair, bench, groups, measure_pair, read_reduced, run_bench
from yolov3_nb.fast import (
    Draws, FastDataset, as_it_is, augment_batch, cut_at, letterbox, move_boxes, shift_hsv,
    uniforms, warp)

ROOT = Path(__file__).resolve().parent.parent


class Drawn(torch.utils.data.Dataset):
    "Images of many shapes, each with one white box on grey."
    def __len__(self):
        return 12

    def __getitem__(self, i):
        rng = np.random.default_rng(i)
        h, w = rng.integers(40, 200, 2).tolist()
        img = np.full((h, w, 3), 90, np.uint8)
        x, y = w // 4, h // 4
        img[y:3 * y, x:3 * x] = 255
        box = torch.tensor([[x, y, 3. * x, 3. * y]])
        return img, {'boxes': box, 'labels': torch.tensor([i]), 'image_id': str(i),
                     'difficult': torch.tensor([False])}


@pytest.mark.parametrize('mosaic', [0, .5, 1])
@pytest.mark.parametrize('strength', [0, .3, 1.])
def test_boxes_stay_on_their_objects(mosaic, strength):
    raw = FastDataset(Drawn(), 96, strength, mosaic).__getitems__(list(range(12)))
    xb, targets = augment_batch(raw)
    assert xb.shape == (12, 3, 96, 96) and xb.min() >= 0 and xb.max() <= 1
    for x, t in zip(xb, targets):
        assert (t['boxes'] >= 0).all() and (t['boxes'] <= 96).all()
        for x1, y1, x2, y2 in t['boxes'].tolist():
            cx, cy = int((x1 + x2) / 2), int((y1 + y2) / 2)
            # the object is the brightest thing of the image, and fills its box
            assert x[:, cy, cx].mean() >= x.mean() - 1e-3


def test_an_image_does_not_depend_on_its_batch():
    ds = FastDataset(Drawn(), 96, 1., .5, seed=3)
    xb, targets = augment_batch(ds.__getitems__([5, 2, 9]))
    again, others = augment_batch(ds.__getitems__([9, 1]))
    assert torch.allclose(xb[2], again[0], atol=1e-5)
    assert torch.allclose(targets[2]['boxes'], others[0]['boxes'], atol=1e-4)
    ds.set_epoch(1)
    assert not torch.allclose(augment_batch(ds.__getitems__([9]))[0][0], again[0], atol=1e-2)


def test_workers_and_cache_change_nothing():
    found = []
    for workers, cache in ((0, True), (1, True), (0, False)):
        ds = FastDataset(Drawn(), 64, 1., .5, cache=cache)
        loader = DataLoader(ds, 4, num_workers=workers, collate_fn=as_it_is)
        found.append(torch.cat([augment_batch(raw)[0] for raw in loader]))
    assert found[0].equal(found[1]) and found[0].equal(found[2])


def test_labels_follow_their_boxes_into_a_mosaic():
    ds = FastDataset(Drawn(), 96, 0, 1.)
    _, targets = augment_batch(ds.__getitems__([0, 1, 2, 3]))
    for i, t in enumerate(targets):
        ids = [int(n) for n in t['image_id'].split('+')]
        assert ids[0] == i and len(ids) == 4
        assert set(t['labels'].tolist()) <= set(ids)


def test_a_matrix_moves_pixels_and_boxes_alike():
    img = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    img[:, :, 20:40, 10:30] = 200
    turn = torch.tensor([[[0., -1, 64], [1, 0, 0], [0, 0, 1]]])  # a quarter turn, exact
    out = warp(img, turn)[0, 0]
    box = move_boxes(torch.tensor([[10., 20, 30, 40]]), turn)[0]
    x1, y1, x2, y2 = box.round().int().tolist()
    assert (x1, y1, x2, y2) == (24, 10, 44, 30)
    assert (out[y1:y2, x1:x2] > 199).all()
    assert abs(out.sum().item() - 200 * 400) < 1


def test_cut_at_is_the_rule_of_chapter_02():
    g = torch.Generator().manual_seed(1)
    low = torch.rand(300, 2, generator=g) * 150 - 40
    boxes = torch.cat([low, low + torch.rand(300, 2, generator=g) * 50], 1)
    window = 0, 5, 80, 90
    ours = cut_at(boxes, torch.tensor([window]).float().expand(300, 4))
    theirs = cut_boxes(boxes, window)
    assert ours[0].equal(theirs[0]) and ours[1].equal(theirs[1]) and 0 < ours[1].sum() < 300


def test_colours_come_back():
    x = torch.rand(2, 3, 8, 8)
    none = torch.zeros(2)
    assert torch.allclose(shift_hsv(x, none, none), x, atol=1e-5)
    turned = shift_hsv(shift_hsv(x, none + .3, none), none - .3, none)
    assert torch.allclose(turned, x, atol=1e-4)
    assert torch.allclose(shift_hsv(x, none + 1, none), x, atol=1e-4)  # a whole turn


def test_draws_keep_their_ranges():
    d = Draws(uniforms(0, 0, range(2000)))
    m = d.matrix(100, .4)  # below a half: scale, shift and flip alone
    scale = m[:, 1, 1]
    assert scale.min() >= 1 / 1.2 and scale.max() <= 1.2
    assert (m[:, 0, 0].abs() - scale).abs().max() < 1e-5
    assert .4 < (m[:, 0, 0] < 0).float().mean() < .6
    turned = Draws(uniforms(0, 0, range(2000))).matrix(100, 1.)[:, 1, 0].abs() > 1e-6
    assert .05 < turned.float().mean() < .15
    assert Draws(uniforms(0, 0, [7])).matrix(100, 0).equal(torch.eye(3)[None])


@pytest.mark.parametrize('h, w', [(1, 50), (50, 1), (37, 91), (200, 200)])
def test_letterbox_of_odd_shapes(h, w):
    img = torch.full((3, h, w), 255, dtype=torch.uint8)
    out = letterbox(img, 64)
    assert out.shape == (3, 64, 64) and out.max() == 255


def test_reduced_reading_keeps_what_is_needed(tmp_path):
    from PIL import Image
    path = tmp_path/'x.jpg'
    Image.new('RGB', (500, 375), (200, 30, 90)).save(path)
    for size, long in ((500, 500), (416, 500), (250, 250), (224, 250), (100, 125), (10, 63)):
        assert max(read_reduced(path, size).shape) == long >= min(size, 500)


def test_the_bench_measures_one_group():
    found = run_bench(1, .1, ('training',), say=lambda line: None)
    assert [r['group'] for r in found['rows']] == ['training'] * 2
    assert all(r['ratio'] > 0 for r in found['rows'])


@pytest.mark.parametrize('threads, opencv', [(1, 1), (2, 2), (None, 3)])
def test_the_bench_holds_opencv_to_its_threads_and_lets_it_go(threads, opencv):
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    seen = []
    try:
        run_bench(threads, .01, ('loops',), say=lambda line: seen.append(cv2.getNumThreads()))
        assert set(seen) == {opencv} and cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize('count, fast_count, ratio', [(1, None, 4), (2, None, 4), (1, 2, 8)])
def test_the_bench_measures_a_ratio_that_is_known(monkeypatch, count, fast_count, ratio):
    now = [0.]  # a clock that goes on by what each form is to take
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr('yolov3_nb.bench.time', clock)

    def takes(seconds):
        return lambda: now.__setitem__(0, now[0] + seconds)

    pair = Pair('wait', 'long', 'short', takes(.04), takes(.01), count, fast_count)
    row = measure_pair(pair, .52)
    assert row['ratio'] == pytest.approx(ratio) and row['rounds'] == 10
    assert row['plain_ms'] == pytest.approx(40 / count)


@pytest.mark.parametrize('argv, words', [
    (['--only', 'rockets'], 'is no group'), (['--threads', '0'], 'out of range'),
    (['--seconds', '-1'], 'out of range'), (['--seconds', 'nan'], 'out of range')])
def test_bad_flags_are_refused_in_a_sentence(argv, words, capsys):
    with pytest.raises(SystemExit) as e:
        bench(argv)
    assert e.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize('name', sorted(f.stem for f in (ROOT/'results').glob('speed*.json')))
def test_stored_runs_have_the_groups_of_the_bench(name):
    r = json.loads((ROOT/'results'/f'{name}.json').read_text(encoding='utf-8'))
    asked = r['command'].partition('--only ')[2].split(' ')[0]
    wanted = set(asked.split(',')) if asked else set(groups(Path(), 1))
    assert {row['group'] for row in r['rows']} | r['skipped'].keys() == wanted
    assert wanted <= groups(Path(), 1).keys()
    assert r['processor'] and r['threads'] and r['command'] and r['cpu_capability']


def test_records_are_made_from_results():
    done = subprocess.run([sys.executable, 'tools/records.py', '--check'], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
