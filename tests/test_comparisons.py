"Tools that compare recipes and rules: what is carried on, what a file keeps, what is assigned."
import json
from pathlib import Path

import pytest
import torch

from yolov3_nb.anchors import ANCHORS, STRIDES, encode, scale_anchors

ROOT = Path(__file__).resolve().parent.parent


def climbed(tool, monkeypatch, file, seeds, gains):
    "The rungs of the ladder `short`, where each change is worth what `gains` says."
    ladder = tool('ladder')
    base = dict(ladder.LADDERS['short'][0], loss='original')

    def run(s):
        score = sum(gain for key, gain in gains.items() if s[key] != base[key])
        return dict.fromkeys(ladder.FIGURES, score + s['seed'] / 1000) | dict(cpu_minutes=0.)

    monkeypatch.setattr(ladder, 'run', run)
    ladder.main('short', seeds, None, file, dict(data=None, progress=False))
    return json.loads(file.read_text(encoding='utf-8'))['rungs']


def test_a_rung_is_carried_on_only_if_it_wins(tool, monkeypatch, tmp_path):
    gains = {'loss': .1, 'anchors': -.2, 'ema': .3}
    rungs = climbed(tool, monkeypatch, tmp_path/'short.json', [0, 1], gains)
    last = rungs[-1]['settings']
    assert (last['loss'], last['anchors'], last['ema']) == ('yolo', 'coco', .998)
    tried = next(r for r in rungs if r['name'].startswith('anchors by k-means'))
    assert tried['settings']['anchors'] == 'toyvoc'
    assert last['strength'] == 1.  # what changes nothing has not won


def test_more_seeds_leave_what_a_ladder_holds(tool, monkeypatch, tmp_path):
    file, gains = tmp_path/'short.json', {'loss': .1}
    first = climbed(tool, monkeypatch, file, [0], gains)
    again = climbed(tool, monkeypatch, file, [0, 1], gains)
    assert [r['name'] for r in again] == [r['name'] for r in first]
    assert all(r['seeds'] == [0, 1] for r in again)


@pytest.mark.parametrize('name', ['ladder_toy', 'ladder_voc'])
def test_the_ladders_on_record_can_be_climbed_again(tool, name):
    ladder, file = tool('ladder'), ROOT/'results'/f'{name}.json'
    record = json.loads(file.read_text(encoding='utf-8'))
    titles = [title for title, _ in ladder.LADDERS[name.removeprefix('ladder_')][1]]
    assert [r['name'] for r in record['rungs']] == titles


def test_a_rule_assigns_as_encode_does(tool, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT/'tools'))
    rules = tool('rules')

    def each_grid(wh, anchors, iou):
        best = iou.view(3, 3)
        positive = (best == best.amax(1, keepdim=True)).view(9)
        return positive, (iou > .5) & ~positive

    boxes = torch.tensor([[2., 3, 30, 28], [40, 4, 60, 40], [5, 40, 20, 62], [70, 70, 95, 96]])
    targets = [dict(boxes=boxes, labels=torch.arange(4)),
               dict(boxes=torch.zeros(0, 4), labels=torch.zeros(0).long())]
    anchors = torch.as_tensor(scale_anchors(ANCHORS['coco'], 96))
    wanted = encode(targets, anchors, (96, 96))
    for got, grid in zip(rules.assign(targets, anchors, (96, 96), each_grid), wanted):
        torch.testing.assert_close(got, grid)
    one = rules.assign(targets, anchors, (96, 96), rules.paper)
    assert sum(int((grid[..., 4] == 1).sum()) for grid in one) == len(boxes)
    assert [grid.shape[-2] for grid in one] == [96//s for s in STRIDES]
