"The bug museum: what its prices were measured with, and that no room lacks its probe."
import json
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
CELLS = json.loads((ROOT/'nbs'/'13_bug_museum.ipynb').read_text(encoding='utf-8'))['cells']
SOURCES = {c['id']: ''.join(c['source']) for c in CELLS}
RESULTS = json.loads((ROOT/'results'/'museum.json').read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def museum(tool):
    return tool('museum')


def test_eighteen_rooms_each_with_a_hunt_a_probe_and_a_price():
    prose = '\n'.join(''.join(c['source']) for c in CELLS if c['cell_type'] == 'markdown')
    rooms = [int(n) for n in re.findall(r'^### Room (\d+) ·', prose, re.M)]
    assert rooms == list(range(1, 19))
    probes = [s for name, s in SOURCES.items() if name.endswith('-probe')]
    assert len(probes) == 18
    assert [s for s in probes if 'convict(' not in s or 'assert ' not in s] == []
    assert len([name for name in SOURCES if name.endswith('-hunt')]) == 18
    priced = {int(n) for s in SOURCES.values() for n in re.findall(r'price\((\d+),', s)}
    assert priced == set(range(1, 19))


def test_every_door_of_the_table_leads_into_a_room():
    headings = re.findall(r'^### (Room .+)$', '\n'.join(SOURCES.values()), re.M)

    def anchor(heading):
        kept = re.sub(r"[^\w\s-]", '', heading.lower())
        return re.sub(r'\s+', '-', kept.strip())
    doors = set(re.findall(r'\]\(#([\w-]+)\)', SOURCES['doors']))
    assert doors <= {anchor(h) for h in headings}
    assert len(doors) == 18


def test_prices_are_those_of_several_seeds_and_one_setting(museum):
    assert RESULTS['settings'] == museum.SETTINGS
    seeds = {}
    for run in RESULTS['runs']:
        seeds.setdefault(run['run'], []).append(run['seed'])
    used = set(re.findall(r"(?<![a-z])trained\('([^']+)'", '\n'.join(SOURCES.values())))
    assert used <= set(museum.NAMES)
    assert {name: len(seeds.get(name, [])) for name in used if len(seeds.get(name, [])) < 3} == {}
    sound = [run['map50'] for run in RESULTS['runs'] if run['run'] == 'sound']
    assert min(sound) > .15  # clearly above noise


def test_the_logs_that_write_do_write(museum):
    preds = [torch.randn(2, 3, 2, 2, 7)]
    targets = [torch.rand(2, 3, 2, 2, 6) + .5]
    targets[0][..., 4] = 1
    anchors = torch.rand(1, 3, 2) + 1
    given = [preds[0].clone()], [targets[0].clone()]
    museum.log_that_writes(*given, anchors)
    assert not given[0][0].equal(preds[0])
    assert not given[1][0].equal(targets[0])
    given = [preds[0].clone()], [targets[0].clone()]
    museum.decode_that_writes(*given, anchors)
    assert not given[0][0].equal(preds[0])
    assert given[1][0].equal(targets[0])


def test_a_rate_is_read_left_of_the_explosion_or_of_the_whole_curve(museum):
    losses = [5.]*10 + [4.9, 4.5, 4.2, 4.1, 4., 4.2, 9., 30., 20., 9., 8., 40.]
    curve = dict(losses=losses, lrs=list(range(len(losses))))
    assert museum.suggested(curve, whole=False) < losses.index(4.)
    assert museum.suggested(curve, whole=True) > losses.index(30.)


def test_a_mirrored_target_is_mirrored(museum):
    target = dict(boxes=torch.tensor([[1., 2, 5, 9]]), labels=torch.tensor([3]))
    turned = museum.mirrored(target, 20)
    assert turned['boxes'].tolist() == [[15, 2, 19, 9]]
    assert museum.mirrored(turned, 20)['boxes'].equal(target['boxes'])
    assert target['boxes'].tolist() == [[1, 2, 5, 9]]
