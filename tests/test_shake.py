"tools/shake.py finds a check that hangs on a seed, on rounding or on threads, and no other."
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ('threads-1', 'threads-2', 'seed-1', 'noise')

FRAGILE = {
    'imports': 'import random, torch\nfrom torch import nn',
    'by-seed': 'torch.manual_seed(0)\nassert round(torch.rand(1).item(), 4) == 0.4963\nreached = 1',
    'after-it': 'assert reached == 1\nassert random.Random(3).random() == 0.23796462709189137',
    'by-rounding': 'torch.manual_seed(0)\nw = nn.init.normal_(torch.empty(9))\n'
                   'torch.manual_seed(0)\nfor _ in range(1):\n'
                   '    assert torch.equal(w, torch.empty(9).normal_())',
    'by-threads': 'x = 1; assert torch.get_num_threads() == 1; y = 2',
    'later': 'assert (x, y) == (1, 2)',
    'left-out': '#| slow\nassert False',
    'not-run': '#| eval: false\nassert False',
}
SOUND = {
    'imports': 'import torch\nfrom torch import nn',
    'equal-seeds': 'def weights():\n    torch.manual_seed(0)\n    return nn.Linear(3, 3).weight\n\n'
                   'assert torch.equal(weights(), weights())',
    'true': 'assert abs(torch.rand(10_000).mean() - .5) < .05',
}


def notebook(path, cells):
    cells = [dict(cell_type='code', id=name, metadata={}, source=source, outputs=[],
                  execution_count=None) for name, source in cells.items()]
    kernel = dict(display_name='python3', language='python', name='python3')
    nb = dict(cells=cells, metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
    path.write_text(json.dumps(nb), encoding='utf-8')
    return path


def shake(out, *args):
    command = [sys.executable, 'tools/shake.py', '--out', str(out), *map(str, args)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def found(out):
    "{setting: ids of the cells that failed}"
    kept = json.loads(out.read_text(encoding='utf-8'))
    return {key.split()[1]: [e['cell'] for e in r['failed']] for key, r in kept.items()}


def test_each_fragile_check_is_found_and_what_follows_runs(tmp_path):
    nb, out = notebook(tmp_path/'fragile.ipynb', FRAGILE), tmp_path/'shake.json'
    done = shake(out, nb, *(word for name in SETTINGS for word in ('--setting', name)))
    assert done.returncode == 1, done.stderr
    assert found(out) == {'threads-1': [], 'threads-2': ['by-threads'],
                          'seed-1': ['by-seed', 'after-it'], 'noise': ['by-rounding']}
    assert 'fragile.ipynb · cell by-seed · 1 of 4: seed-1' in done.stdout
    assert '    assert torch.get_num_threads() == 1\n' in done.stdout
    assert '4 checks that fail somewhere' in done.stdout
    before = out.read_bytes()
    again = shake(out, nb, '--setting', 'seed-1', '--minutes', '0')  # known: nothing runs
    assert again.returncode == 1 and out.read_bytes() == before


def test_a_sound_notebook_is_found_sound(tmp_path):
    nb, out = notebook(tmp_path/'sound.ipynb', SOUND), tmp_path/'shake.json'
    done = shake(out, nb, '--setting', 'seed-2', '--setting', 'noise', '--jobs', '2')
    assert done.returncode == 0, done.stdout + done.stderr
    assert found(out) == {'seed-2': [], 'noise': []}


def test_a_run_without_end_is_a_failure(tmp_path):
    nb = notebook(tmp_path/'endless.ipynb', {'wait': 'import time\nwhile True: time.sleep(1)'})
    done = shake(tmp_path/'shake.json', nb, '--setting', 'threads-1', '--minutes', '0.1')
    assert done.returncode == 1 and 'not finished after 0.1 minutes' in done.stdout


def test_what_is_stopped_leaves_no_run_behind(tmp_path):
    cell = "from pathlib import Path\nimport os, time\n" \
           f"Path({str(tmp_path)!r}, f'{{os.getpid()}}.pid').touch()\nwhile True: time.sleep(1)"
    nb, out = notebook(tmp_path/'endless.ipynb', {'wait': cell}), tmp_path/'shake.json'
    command = [sys.executable, 'tools/shake.py', str(nb), '--out', str(out),
               '--setting', 'seed-1', '--setting', 'seed-2', '--jobs', '2']
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        until = time.time() + 120
        while len(pids := list(tmp_path.glob('*.pid'))) < 2 and time.time() < until:
            time.sleep(.2)
        process.terminate()
        assert process.wait(30) == 143
    assert len(pids) == 2
    assert not any(is_alive(int(p.stem)) for p in pids)
    assert not out.exists()  # a run that was killed has not failed


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize('flags, lacking', [
    (set(), ['aten-avx2', 'aten-avx512', 'onednn-SSE41', 'onednn-AVX512_CORE_AMX']),
    ({'sse4_1', 'avx', 'avx2', 'fma'}, ['aten-avx512', 'onednn-AVX2_VNNI', 'onednn-AVX512_CORE']),
])
def test_what_a_processor_lacks_is_said_and_left_out(tool, flags, lacking):
    chosen, without = tool('shake').settings(flags)
    assert set(lacking) <= set(without)
    assert not set(lacking) & {part for name in chosen for part in name.split('+')}
    assert {'threads-4', 'aten-default', 'fpmath-BF16', 'seed-3', 'noise'} <= set(chosen)
    assert sum('+' in name for name in chosen) == 3


def test_the_notebooks_that_train_are_found(tool):
    names = {p.name for p in tool('shake').choose([], [])}
    assert {'06_loss.ipynb', '07_lr_finder.ipynb', '08_training.ipynb'} <= names
    assert not {'index.ipynb', 'glossary.ipynb'} & names


def test_a_result_hangs_on_what_the_notebook_imports(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT/'tools'))
    import shake
    boxes = notebook(tmp_path/'a.ipynb', {'one': 'from yolov3_nb.boxes import iou\n%time 1'})
    names = {f.stem for f in shake.library_of(boxes)}
    assert {'__init__', 'boxes'} <= names and not {'cli', 'learner', 'training'} & names
    late = notebook(tmp_path/'b.ipynb', {'one': 'def f():\n    import yolov3_nb.training'})
    names = {f.stem for f in shake.library_of(late)}  # and what it imports in its turn
    assert {'training', 'model', 'loss', 'files'} <= names and 'cli' not in names
    offered = notebook(tmp_path/'c.ipynb', {'one': 'from yolov3_nb import Learner'})
    assert {'learner', 'training', 'loss'} <= {f.stem for f in shake.library_of(offered)}
    for command in ('x = !ls', '!yolov3_train'):  # which may use any module
        magic = notebook(tmp_path/'d.ipynb', {'one': command})
        assert 'cli' in {f.stem for f in shake.library_of(magic)}


def test_settings_that_compute_the_same_are_run_once(tool, tmp_path):
    nb, out = notebook(tmp_path/'sound.ipynb', SOUND), tmp_path/'shake.json'
    chosen, _ = tool('shake').settings(tool('shake').processor_flags())
    if 'onednn-SSE41' not in chosen:
        pytest.skip('this processor has no SSE 4.1')
    widest = [n for n in chosen if n.startswith('aten-')][-1]  # what the processor does anyway
    done = shake(out, nb, '--setting', widest, '--setting', 'onednn-SSE41')
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(found(out)) == {'threads-1', 'onednn-SSE41'}  # SSE 4.1 adds up in another order
    assert re.search(f'^{widest} +computes the same as threads-1, in every bit$', done.stdout, re.M)
