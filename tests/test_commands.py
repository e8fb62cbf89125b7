"""The console scripts as a shell sees them: exit status and one sentence, and no traceback; and
what they write is whole or not there."""
import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from yolov3_nb import cli, inspection, learner, networks, prediction, report, runs, space
from yolov3_nb.augment import worker_init
from yolov3_nb.files import InputError, read_image, write_json, write_whole
from yolov3_nb.learner import Learner
from yolov3_nb.model import YOLOv3

ROOT = Path(__file__).resolve().parent.parent

def run(*args):
    return subprocess.run(args, capture_output=True, text=True, timeout=120)

@pytest.mark.parametrize('command', [
    'yolov3_train', 'yolov3_eval', 'yolov3_predict', 'yolov3_export', 'yolov3_app', 'yolov3_data',
    'yolov3_check'])
def test_help(command):
    done = run(command, '--help')
    assert done.returncode == 0 and done.stdout.startswith(f'usage: {command}')

@pytest.mark.parametrize('args, says', [
    (['yolov3_train', '--size', '100'], 'multiple of 32'),
    (['yolov3_train', '--resume', 'no-such-run'], 'no run folder'),
    (['yolov3_eval', '--weights', 'no-such-weights'], 'There are no weights'),
    (['yolov3_eval', '--detections', 'no-such-file.json'], 'are not there'),
    (['yolov3_eval', '--nms', '45'], 'give a share from 0 to 1'),
    (['yolov3_predict', 'a.jpg', '--weights', 'no-such-weights'], 'There are no weights'),
    (['yolov3_export', '--weights', 'no-such.weights'], 'cannot be read'),
    (['yolov3_data', 'inspect', 'no-such-folder'], 'No devkit found'),
    (['yolov3_check', 'no-such-folder'], 'holds no notebook with exercises')])
def test_bad_input_is_one_sentence(args, says, tmp_path):
    done = subprocess.run(args, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and 'Traceback' not in done.stderr
    assert not list(tmp_path.iterdir())  # nothing half-written

no_gpu = pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(),
                            reason='there is a GPU')

OUT_OF_RANGE = ('accumulate 0', 'workers -1', 'warmup 2', 'seed -1', 'limit -5', 'epochs 0',
                'batch 0', 'lr 0', 'mosaic nan', 'width inf', 'map_every -1', 'strength -1')
LIGHTNINGS = ('precision foo', 'devices x --accelerator cpu', 'devices 0', 'accelerator moon',
              'strategy foo')
OF_EVAL = 'batch 0', 'workers -1', 'max_detections 0', 'precision foo', 'size -32'

@pytest.mark.parametrize('main, line, says', [
    *((cli.train, f'--{flag}', f'--{flag.split()[0]} ') for flag in OUT_OF_RANGE),
    *((cli.train, f'--{flag}', 'Lightning refuses this run (') for flag in LIGHTNINGS),
    pytest.param(cli.train, '--accelerator gpu', 'Lightning refuses this run (', marks=no_gpu),
    *((cli.evaluate_weights, f'--{flag}', f'--{flag.split()[0]} ') for flag in OF_EVAL),
    (cli.predict, f'{ROOT}/nbs --no-progress --size 100', 'no multiple of 32'),
    (cli.run_app, '--make_space space --results notes.json', 'notes.json is no file of results'),
    (cli.predict, 'notes.json --no-progress --out deep/below', 'nothing was written'),
    (cli.predict, 'notes.json --no-progress --out empty', 'nothing was written')])
def test_what_cannot_work_is_one_sentence_and_leaves_nothing(main, line, says, tmp_path,
                                                             monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('YOLOV3_RUN', '')
    Path('notes.json').write_text('{"metrics": {"map50": 1}, "data": []}')
    Path('empty').mkdir()
    with pytest.raises(SystemExit) as e:
        data = ['--data', 'nowhere'] if main in (cli.train, cli.evaluate_weights) else []
        main([*line.split(), *data])
    said = capsys.readouterr().err.strip().splitlines()
    assert e.value.code == 2, said
    assert says in said[-1] and said[-1].endswith('.'), said
    assert not [line for line in said[:-1] if 'Skipped: ' not in line], said
    # no folder of a run, nothing half-written, and what was there is there
    assert sorted(os.listdir()) == ['empty', 'notes.json']

SCRIPTS = dict(re.findall(r'(yolov3_\w+)=yolov3_nb\.cli:(\w+)', (ROOT/'settings.ini').read_text()))

@pytest.mark.parametrize('name', SCRIPTS)
def test_what_nobody_expected_is_a_sentence_and_debug_shows_the_traceback(
        name, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise KeyError('the moon')

    monkeypatch.setattr(cli.FlagParser, 'parse_args', fail)
    monkeypatch.setattr('sys.argv', [f'/usr/bin/{name}'])
    for argv in ([], ['--debug']):
        with pytest.raises(SystemExit) as e:
            getattr(cli, SCRIPTS[name])(argv)
        said = capsys.readouterr().err.strip().splitlines()
        assert e.value.code == 1, said
        assert said[-1].startswith(f"{name}: A fault of this program (KeyError: 'the moon'; ")
        assert '--debug' in said[-1], said
        assert said[0].startswith('Traceback') if argv else len(said) == 1, said

def test_every_command_is_one_and_knows_debug():
    assert len(SCRIPTS) >= 7
    assert all(hasattr(getattr(cli, function), '__wrapped__') for function in SCRIPTS.values())
    for parser in (cli.train_parser, cli.eval_parser, cli.predict_parser, cli._export_parser,
                   cli.data_parser, cli._app_parser):
        assert '--debug' in parser().format_help()
    for line in ('toy --debug', '--debug toy', 'inspect --debug x', 'import --debug a b',
                 'download --debug'):
        assert cli.data_parser().parse_args(line.split()).debug

def test_a_reader_that_has_had_enough_is_no_fault():
    done = subprocess.run(
        'yolov3_train --help | true; echo ${PIPESTATUS[0]}', shell=True, executable='/bin/bash',
        capture_output=True, text=True, timeout=120)
    assert done.stderr == '' and done.stdout.strip() in ('0', '141')

def test_what_lightning_says_is_cut_to_a_sentence():
    assert learner.first_sentence(
        ValueError(
            'Precision 3.5 is wrong. Take another one.\nSee there.')) == 'Precision 3.5 is wrong'
    assert learner.first_sentence(ValueError('')) == 'ValueError'

def test_both_spellings_of_the_flags_of_nms():
    for parser, first in ((cli.eval_parser(), []), (cli.predict_parser(), ['a.jpg'])):
        for line in ('--nms .3 --max_detections 7', '--iou .3 --max 7'):
            a = parser.parse_args([*first, *line.split()])
            assert (a.nms, a.max_detections) == (.3, 7)
        # what is not given is not in the way of a default
        assert not hasattr(parser.parse_args(first), 'nms')
        assert '--nms' in parser.format_help() and '--iou' not in parser.format_help()

def test_results_by_name_or_by_file(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert (runs.results_file('toy') == runs.results_file('results/toy.json')
            == Path('results/toy.json'))
    assert (runs.read_result('toy') == runs.read_result(ROOT/'results'/'toy.json')
            == json.loads((ROOT/'results'/'toy.json').read_text()))
    for n, text in enumerate(('{}', '[]', '1', 'text',
                              '{"metrics": {"map50": "x"}, "data": {"n_test": 1, "test": "t"}, '
                              '"date": 1, "command": 1, "commit": 1}')):
        (tmp_path/f'{n}.json').write_text(text)
        with pytest.raises(InputError, match='is no file of results'):
            runs.read_result(tmp_path/f'{n}.json')
    with pytest.raises(InputError, match='is no file of results'):
        runs.read_result('no-such-name')


# what is written

@contextlib.contextmanager
def full_disk():
    "No file may grow beyond 512 bytes: a full disk, as far as a process can tell."
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

def write_report(path):
    # of a time when neither processor nor precision were noted
    old = json.loads((ROOT/'results'/'toy.json').read_text())
    return report.write_report(path.parent, old, old['settings'], [])

def write_detections(path):
    from yolov3_nb.errors import write_detections
    none = dict(image=torch.zeros(300).long(), labels=torch.zeros(300).long(),
                scores=torch.ones(300), boxes=torch.rand(300, 4))
    return write_detections(path.parent, none, ['a'], ('dog',))

def write_examples(path):
    from yolov3_nb.app import example_files
    return example_files(path.parent)

def write_space(path):
    return space.make_space(path.parent, ROOT/'weights'/'toy', ROOT/'results'/'toy.json')

WRITERS = {'report.html': write_report, 'coco_results.json': write_detections,
           'course.jpg': write_examples, 'README.md': write_space,
           'figures.json': lambda path: write_json(path, list(range(999))),
           'page.html': lambda path: inspection.write_page(path, '.', {}, [], ()),
           'detections.csv': lambda path: prediction.write_records([dict(image='x' * 999)], [], [],
                                                                   [], path.parent),
           'model.safetensors': lambda path: networks.save_weights(YOLOv3(3, .0625, image_size=64),
                                                                   path.parent)}

@pytest.mark.parametrize('name', WRITERS)
def test_a_full_disk_or_a_file_in_the_way_is_a_sentence_and_what_was_there_stays(
        name, tmp_path, monkeypatch):
    def build_wheel(folder):
        (wheel := Path(folder)/'yolov3_nb-2-py3-none-any.whl').write_bytes(b'new')
        return wheel
    monkeypatch.setattr(space, 'build_wheel', build_wheel)
    (folder := tmp_path/'folder').mkdir()
    old = {name: 'old', 'yolov3_nb-1-py3-none-any.whl': 'old wheel'}
    for file, text in old.items():
        (folder/file).write_text(text)
    with full_disk(), pytest.raises(InputError,
                                    match='folder.* cannot be written .*File too large') as e:
        WRITERS[name](folder/name)
    assert '\n' not in str(e.value)
    assert {f.name: f.read_text() for f in folder.iterdir()} == old
    assert os.listdir(tmp_path) == ['folder']
    (tmp_path/'file').write_text('in the way')
    with pytest.raises(InputError, match='file.* cannot be written .(File exists|Not a directory)'):
        WRITERS[name](tmp_path/'file'/name)
    assert (tmp_path/'file').read_text() == 'in the way'
    assert sorted(os.listdir(tmp_path)) == ['file', 'folder']
    WRITERS[name](folder/name)
    assert (folder/name).stat().st_size > 512 and not [f for f in folder.rglob('.*')]
    # a new wheel takes the place of the old one
    assert (folder/'yolov3_nb-1-py3-none-any.whl').exists() == (name != 'README.md')

def test_several_files_come_together(tmp_path):
    write_whole({tmp_path/'a': b'old'})
    with full_disk(), pytest.raises(InputError, match='new/b cannot be written'):
        write_whole({tmp_path/'a': b'new', tmp_path/'new'/'b': bytes(999)})
    assert (tmp_path/'a').read_bytes() == b'old' and os.listdir(tmp_path) == ['a']

def test_a_record_says_what_it_was_computed_on_and_in():
    found = runs.record('x', ['yolov3_eval'], None, {}, {}, 0., precision='bf16-mixed')
    assert found['precision'] == 'bf16-mixed'
    assert len(found['processor']) > 2
    assert found['device'].endswith('CPU cores')

def test_a_compiled_network_is_measured_and_explained_as_it_was_saved(tmp_path):
    "A compiled network is one piece: hooks on its layers may see nothing."
    model = YOLOv3(20, .0625, image_size=64)
    model.compile(backend='eager')
    learner = Learner(run=tmp_path)
    learner.module = SimpleNamespace(model=model)
    learner.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device='cpu'))
    learner._keep_weights()
    assert model._compiled_call_impl and not learner.model._compiled_call_impl
    assert all(torch.equal(a, b)
               for a, b in zip(model.state_dict().values(), learner.model.state_dict().values()))


# what is read, and who reads

def test_an_upload_that_was_deleted_meanwhile_is_a_sentence(tmp_path):
    from yolov3_nb.app import check_upload
    with pytest.raises(InputError, match='^cat.jpg is not kept any more: upload it again.$'):
        check_upload(str(tmp_path/'cat.jpg'))

def test_a_huge_file_that_is_no_picture_is_refused_by_its_head(tmp_path):
    for head in (b'no picture', b'II*\0\x08\0\0\0\x01\0\0\1\3\0\1\0\0\0\2\0\0\0',
                 b'PF\n9000 9000\n'):
        (tmp_path/'huge.jpg').write_bytes(head)
        os.truncate(tmp_path/'huge.jpg', 2**29)  # half a gigabyte that takes no room
        tracemalloc.start()
        with pytest.raises(InputError):
            read_image(tmp_path/'huge.jpg')
        assert tracemalloc.get_traced_memory()[1] < 2**25, head
        tracemalloc.stop()

def test_data_workers_outlive_the_first_wish_to_terminate():
    "It may reach the whole process group, and the main process still has to save."
    batches = iter(DataLoader(np.arange(40), 4, num_workers=1, worker_init_fn=worker_init))
    got, worker = next(batches).tolist(), batches._workers[0]
    os.kill(worker.pid, signal.SIGTERM)
    time.sleep(.5)
    assert got + torch.cat(list(batches)).tolist() == list(range(40))
    batches = iter(DataLoader(np.arange(4000), 4, num_workers=1, worker_init_fn=worker_init))
    next(batches)
    with pytest.raises(RuntimeError, match='Terminated'):  # a second wish ends it
        for _ in range(2):
            batches._workers[0].terminate(), time.sleep(.5)

@pytest.mark.parametrize('steps', [1, 2, 5, 10, 20])
def test_a_climb_of_one_step(steps):
    from yolov3_nb.training import LitYOLOv3
    for warmup in (0., 1 / steps, .15):
        module = LitYOLOv3(20, .0625, 64, warmup=min(warmup, 1.))
        module._trainer = SimpleNamespace(estimated_stepping_batches=steps, precision='32-true')
        made = LitYOLOv3.configure_optimizers(module)
        rates = []
        for _ in range(steps):
            rates.append(made['optimizer'].param_groups[0]['lr'])
            made['optimizer'].step()
            if len(rates) < steps:
                made['lr_scheduler']['scheduler'].step()
        assert all(0 < r <= module.hparams.lr for r in rates)
