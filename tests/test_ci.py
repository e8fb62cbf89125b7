"What .ci/run, the workflows, the requirements and the test command promise each other."
import os
import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
CFG = ConfigParser(delimiters=['='])
CFG.read(ROOT/'settings.ini', encoding='utf-8')
CFG = CFG['DEFAULT']
README = '''# x

```sh
pip install something-else
```

<!-- command: test -->
```sh
first line
second line
```

<!-- command: train -->

```sh
pip install -e . && yolov3_train
```
'''


def requirements(kind):
    return {r.name: r for r in map(Requirement, CFG[f'{kind}requirements'].split())}


def constraints():
    lines = (ROOT/'constraints.txt').read_text(encoding='utf-8').splitlines()
    return dict(line.split('==') for line in lines if not line.startswith('#'))


def readme_command(folder, name):
    "What .ci/run runs for a command of the README in a folder."
    script = (ROOT/'.ci'/'run').read_text(encoding='utf-8')
    function = re.search(r'^readme_command\(\) \{.*?^\}', script, re.M | re.S)[0]
    done = subprocess.run(['bash', '-c', f'{function}\nreadme_command {name}'], cwd=folder,
                          capture_output=True, text=True)
    return done.stdout.strip()


def test_commands_are_found_by_their_marker_wherever_they_stand(tmp_path):
    (tmp_path/'README.md').write_text(README, encoding='utf-8')
    assert readme_command(tmp_path, 'train') == 'pip install -e . && yolov3_train'
    assert readme_command(tmp_path, 'test') == 'first line\nsecond line'
    lost = readme_command(tmp_path, 'gone')
    assert subprocess.run(['bash', '-c', lost], capture_output=True).returncode == 1


def test_the_readme_marks_the_commands_that_ci_runs():
    assert readme_command(ROOT, 'train') == 'pip install -e . && yolov3_train'
    assert readme_command(ROOT, 'test') == 'pip install -e ".[dev]" && python tools/test.py'


def test_the_plain_command_runs_as_the_one_with_a_thread_count(tool):
    "`python tools/test.py` and `OMP_NUM_THREADS=1 python tools/test.py` start the same."
    plain = {'PATH': '/bin', 'HOME': '/root'}
    environment = tool('test').environment
    assert environment(plain) == environment(plain | {'OMP_NUM_THREADS': '1'})
    assert environment(plain) == plain | {'OMP_NUM_THREADS': '1'}


def test_pytest_runs_files_side_by_side_where_it_can(tool, monkeypatch):
    module = tool('test')
    monkeypatch.setattr(module.importlib.util, 'find_spec', lambda name: name)
    assert [module.several(cores)[:2] for cores in (1, 2, 64)] == [[], ['-n', '2'], ['-n', '8']]
    monkeypatch.setattr(module.importlib.util, 'find_spec', lambda name: None)
    assert module.several(64) == []


@pytest.mark.parametrize('given, seen', [(None, '1'), ('3', '3')])
def test_the_thread_count_reaches_the_commands_and_a_given_one_is_kept(
        tool, monkeypatch, capfd, given, seen):
    module = tool('test')
    monkeypatch.setattr(module.os, 'cpu_count', lambda: 2)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    if given:
        monkeypatch.setenv('OMP_NUM_THREADS', given)
    shell = ['sh', '-c', 'echo "threads $OMP_NUM_THREADS"; exit 3']
    monkeypatch.setattr(module, 'commands', lambda: dict(notebooks=shell, tests=shell))
    assert module.main(['notebooks', 'tests']) == 1  # the second part ran after the first failed
    assert capfd.readouterr().out.count(f'threads {seen}\n') == 2


def test_pytest_alone_has_its_thread_count_too():
    assert os.environ['OMP_NUM_THREADS']


def test_the_constraints_are_within_the_requirements():
    pinned = constraints()
    for kind in ('', 'app_', 'dev_', 'export_'):
        for name, r in requirements(kind).items():
            version = pinned[re.sub(r'[-_.]+', '-', name).lower()]
            assert r.specifier.contains(version), (str(r), version)
    assert all(re.fullmatch(r'[\w.+]+', v) and re.fullmatch(r'[\w-]+', n)
               for n, v in pinned.items())  # no addresses, no folders


def test_what_is_bounded_and_what_is_not():
    needs, dev = requirements(''), requirements('dev_')
    assert str(needs['albumentations'].specifier) == '==2.0.8'
    bounded = {n for n, r in (needs | requirements('export_')).items() if '<' in str(r.specifier)}
    assert {'torch', 'torchvision', 'numpy', 'pandas', 'huggingface_hub', 'tensorboard',
            'onnx', 'onnxscript', 'onnxruntime'} <= bounded
    assert '<' not in str(needs['fastcore'].specifier)  # of all users' environments we use `patch`
    assert '<' in str(dev['fastcore'].specifier)


def test_the_workflows_run_each_python_that_is_promised():
    yaml = pytest.importorskip('yaml')
    jobs = yaml.safe_load((ROOT/'.github/workflows/test.yml').read_text(encoding='utf-8'))['jobs']
    pythons = jobs['linux']['strategy']['matrix']['python']
    assert pythons[0] == CFG['min_python'] and pythons[-1] == '3.13'
    deploy = (ROOT/'.github/workflows/deploy.yml').read_text(encoding='utf-8')
    assert CFG['user'] not in deploy and 'workflows: [test]' in deploy


def test_a_fork_links_to_itself(tool, tmp_path):
    for name in ('settings.ini', 'README.md', '_quarto.yml'):
        shutil.copy(ROOT/name, tmp_path/name)
    (tmp_path/'nbs').mkdir()
    shutil.copy(ROOT/'nbs'/'03_boxes.ipynb', tmp_path/'nbs')
    pages = f"https://{CFG['user']}.github.io/{CFG['repo']}/boxes.html"
    (tmp_path/'pages.md').write_text(pages, encoding='utf-8')
    subprocess.run('git init -q && git add .', shell=True, cwd=tmp_path, check=True)
    old = f"{CFG['user']}/{CFG['repo']}"
    changed = tool('repository').move(tmp_path, 'someone', 'a-detector')
    assert {p.name for p in changed} == {'settings.ini', 'README.md', '_quarto.yml',
                                         '03_boxes.ipynb', 'pages.md'}
    cfg = tool('repository').settings(tmp_path)
    assert cfg['git_url'] == 'https://github.com/someone/a-detector'
    assert cfg['doc_host'] + cfg['doc_baseurl'] == 'https://someone.github.io/a-detector'
    moved = 'https://someone.github.io/a-detector/boxes.html'
    assert (tmp_path/'pages.md').read_text(encoding='utf-8') == moved
    for path in changed:
        assert old not in path.read_text(encoding='utf-8')
    assert tool('repository').move(tmp_path, 'someone', 'a-detector') == []
