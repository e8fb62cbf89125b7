"""What the records and cards of shipped weights say: a training in stages, and figures of today."""
import json
import shutil

import pytest
import torch


@pytest.fixture
def stages(tool, tmp_path, monkeypatch):
    "The tool, with a results folder of its own."
    module = tool('stages')
    monkeypatch.setattr(module, 'ROOT', tmp_path)
    (tmp_path/'results').mkdir()
    return module

def settings(**changes):
    "The settings of a run, as far as the tools read them."
    return dict(size=160, grow=0., batch=8, optimizer='muon', lr=.004, schedule='wsd', decay=.2,
                ema=.99, mosaic=.3, rect=False, devices='2', accumulate=1, precision='bf16-mixed',
                data='/somewhere',
                start='/somewhere/weights', out='/somewhere/run') | changes

def put(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding='utf-8')

def test_a_training_in_stages_names_each_run(stages, tmp_path):
    curve = {'settings': settings(size=224), 'points': [
        {'images_seen': 1000, 'left_at': None, 'size': 128, 'settings': None},
        {'images_seen': 1200, 'left_at': 1000, 'settings': settings(decay=.95)}]}
    put(tmp_path/'results'/'voc0712_curve.json', curve)
    put(tmp_path/'first'/'settings.json', settings())
    put(tmp_path/'last'/'settings.json', settings(size=224))
    (tmp_path/'first'/'images_0000400').mkdir()
    torch.save({'global_step': 6}, tmp_path/'last'/'last.ckpt')  # of 8 images on 2 devices
    runs = [f"{tmp_path/'first'}=400", f"{tmp_path/'last'}=96"]
    found, last = stages.all_stages(1200, runs)
    assert [s['images'] for s in found] == [1000, 200, 400, 96]
    assert [s['size'] for s in found] == [128, 160, 160, 224] and last['size'] == 224
    assert '/somewhere' not in json.dumps([found, last])
    assert len(stages.all_stages(None, runs)[0]) == 2
    with pytest.raises(SystemExit, match='no milestone of 95 images, and ended after 96'):
        stages.all_stages(None, [f"{tmp_path/'last'}=95"])

def test_a_milestone_of_a_later_run_is_no_first_stage(stages, tmp_path):
    curve = {'settings': settings(), 'points': [
        {'images_seen': 1000, 'left_at': None, 'size': 128, 'settings': settings()},
        {'images_seen': 1200, 'left_at': 1000, 'settings': settings(decay=.95)}]}
    put(tmp_path/'results'/'voc0712_curve.json', curve)
    with pytest.raises(SystemExit, match='name its runs with --stage'):
        stages.all_stages(1200, ['run=1'])

def test_the_cards_of_the_weights_say_what_was_measured(tool):
    tool('cards').main(check=True)

def test_a_stale_card_is_named(tool, tmp_path, monkeypatch):
    cards = tool('cards')
    shutil.copytree(cards.ROOT/'results', tmp_path/'results')
    for folder in cards.WEIGHTS:
        (tmp_path/'weights'/folder).mkdir(parents=True)
    monkeypatch.setattr(cards, 'ROOT', tmp_path)
    cards.main(check=False)
    cards.main(check=True)
    old = json.loads((tmp_path/'results'/'toy.json').read_text(encoding='utf-8'))
    old['metrics']['map50'] -= .1
    put(tmp_path/'results'/'toy.json', old)
    with pytest.raises(SystemExit, match='weights/toy/README.md: out of date'):
        cards.main(check=True)
