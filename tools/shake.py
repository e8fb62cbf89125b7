"""Run notebooks as other processors, threads and seeds would: `python tools/shake.py [NB ...]`.

A check that holds here may hang on chance: on the order in which threads add up, on the vector
unit of this processor, on a seed. This script runs each notebook that trains or draws random
numbers once under each of many settings, one process a run, and reports every check that fails in
any of them, by cell id and statement. A failing statement does not end its run: the statements and
the cells after it run too, so that one run shows all that fails.

    python tools/shake.py --list                      the settings, and what this processor lacks
    python tools/shake.py --only 07 --only 06         the notebooks whose path contains 07 or 06
    python tools/shake.py --setting seed-1 --only 07  one setting
    python tools/shake.py --minutes 5                 a run that takes longer counts as a failure
    python tools/shake.py --jobs 2                    two runs at a time

Two settings of a processor's instructions may compute the same: each is asked first for its
*fingerprint*, what convolutions, products and a few steps of training give, in 32 and 16 bits.
Those whose fingerprints agree in every bit are run once; the table says which run stands for them.

Results are kept in runs/shake.json after each run; what stands there and still holds (the same code
in the notebook and in what it imports, the same processor and torch) is not run again. `--anew`
forgets it.
Exit status 1 where a check failed. The settings, each alone, then three combinations by lot:

- `threads-N`: OMP_NUM_THREADS; `threads-1` is the plain run, all others have one thread too
- `aten-X`: ATEN_CPU_CAPABILITY and MKL_ENABLE_INSTRUCTIONS, PyTorch's own kernels and MKL's
- `onednn-X`: ONEDNN_MAX_CPU_ISA, the convolutions
- `fpmath-BF16`: ONEDNN_DEFAULT_FPMATH_MODE, convolutions that may round to bfloat16
- `seed-N`: N more than each whole number that seeds torch, NumPy or Python's random. Seeds that are
  texts stay: they name drawings of ToyVOC. So do large numbers (from 2¹⁶ on), which another
  generator drew: ToyVOC's processes, which nobody shakes, have to draw the same images
- `noise`: each initial weight that torch.nn.init draws changes by about a millionth of itself"""
import argparse
import ast
import contextlib
import hashlib
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

THREADS = ('1', '2', '4')
ATEN = {  # capability: what /proc/cpuinfo has to name, and MKL's word for it
    'default': ('', 'SSE4_2'),
    'avx2': ('avx2 fma', 'AVX2'),
    'avx512': ('avx512f avx512bw avx512dq avx512vl', 'AVX512'),
}
ONEDNN = {  # instruction set: what /proc/cpuinfo has to name
    'SSE41': 'sse4_1',
    'AVX': 'avx',
    'AVX2': 'avx2',
    'AVX2_VNNI': 'avx_vnni',
    'AVX512_CORE': 'avx512f avx512bw avx512dq avx512vl',
    'AVX512_CORE_VNNI': 'avx512_vnni',
    'AVX512_CORE_BF16': 'avx512_bf16',
    'AVX512_CORE_FP16': 'avx512_fp16',
    'AVX512_CORE_AMX': 'amx_tile amx_int8 amx_bf16',
    'AVX512_CORE_AMX_FP16': 'amx_tile amx_fp16',
}
FPMATH = ('BF16',)
SEEDS = ('1', '2', '3')
NOISE = 1e-6

# A notebook whose code names one of these trains, or draws random numbers.
DRAWS = re.compile(r'\b(backward|fit|train|manual_seed|seed_everything|default_rng|RandomState'
                   r'|Random|Generator|rand|randn|randint|randperm|rand_like|randn_like|normal|uniform'
                   r'|shuffle|sample)\(')


# ---- settings

def processor_flags():
    "The instruction sets that the processor names; empty where the system has no /proc/cpuinfo."
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        return set()
    found = re.search(r'^flags\s*:\s*(.*)$', text, re.M)
    return set(found[1].split()) if found else set()


def parts(flags):
    "{kind: {name: environment}} of the settings that this processor has, and the names it lacks."
    has = {'threads': {f'threads-{n}': {'OMP_NUM_THREADS': n} for n in THREADS}}
    lacking = []
    has['aten'] = {}
    for name, (needs, mkl) in ATEN.items():
        if set(needs.split()) <= flags:
            env = {'ATEN_CPU_CAPABILITY': name, 'MKL_ENABLE_INSTRUCTIONS': mkl}
            has['aten'][f'aten-{name}'] = env
        else:
            lacking.append(f'aten-{name}')
    has['onednn'] = {}
    for name, needs in ONEDNN.items():
        if set(needs.split()) <= flags:
            has['onednn'][f'onednn-{name}'] = {'ONEDNN_MAX_CPU_ISA': name}
        else:
            lacking.append(f'onednn-{name}')
    has['fpmath'] = {f'fpmath-{m}': {'ONEDNN_DEFAULT_FPMATH_MODE': m} for m in FPMATH}
    has['seed'] = {f'seed-{n}': {'SHAKE_SEED': n} for n in SEEDS}
    has['noise'] = {'noise': {'SHAKE_NOISE': str(NOISE)}}
    return has, lacking


def settings(flags):
    "{name: environment} of each setting and of three combinations by lot; what is lacking."
    has, lacking = parts(flags)
    chosen = {name: env for members in has.values() for name, env in members.items()}
    lot = random.Random(0)
    for _ in range(3):
        drawn = [lot.choice(sorted(members)) for members in has.values() if members]
        drawn = [n for n in drawn if n not in ('fpmath-BF16', 'noise') or lot.random() < .5]
        chosen['+'.join(drawn)] = {k: v for n in drawn for k, v in chosen[n].items()}
    return chosen, lacking


# ---- settings that compute the same

def fingerprint():
    "A hash of what this process computes: products, convolutions, functions, steps of training."
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F
    sys.path.insert(0, str(ROOT))
    from yolov3_nb.model import YOLOv3
    marks = hashlib.sha256()

    def mark(*tensors):
        for t in tensors:
            marks.update(t.detach().float().contiguous().numpy().tobytes())

    torch.manual_seed(0)
    a, b = torch.randn(97, 130), torch.randn(130, 61)
    mark(a @ b, a[:1] @ b, torch.linalg.inv(a[:60, :60]), torch.linalg.svd(a)[1])
    mark(a.exp(), a.sigmoid(), a.tanh(), a.atan(), a.log1p(), a.softmax(1), a.sum(), a.std(),
         a.mean(0), a.cumsum(0), a.abs().sqrt(), F.logsigmoid(a))
    image = torch.randn(2, 3, 20, 20)
    mark(F.interpolate(image, size=(33, 31), mode='bilinear'),
         F.grid_sample(image, torch.rand(2, 9, 9, 2), align_corners=False),
         nn.BatchNorm2d(3)(image))
    for kernel, stride, groups, inputs, outputs, side in (
            (3, 1, 1, 3, 8, 96), (3, 2, 1, 8, 16, 96), (1, 1, 1, 32, 16, 24),
            (3, 1, 1, 64, 128, 13), (3, 1, 16, 16, 16, 20), (5, 1, 1, 7, 9, 17),
            (1, 1, 1, 128, 75, 3)):
        for half in (False, True):
            for layout in (torch.contiguous_format, torch.channels_last):
                conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel//2, groups=groups)
                x = torch.randn(4, inputs, side, side, requires_grad=True)
                with torch.autocast('cpu', torch.bfloat16, enabled=half):
                    y = conv(x.to(memory_format=layout))
                y.float().square().mean().backward()
                mark(y, x.grad, conv.weight.grad)
    for half in (False, True):
        model = YOLOv3(width=.25)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        for _ in range(2):
            with torch.autocast('cpu', torch.bfloat16, enabled=half):
                out = model(torch.randn(2, 3, 96, 96))
            loss = sum(y.float().square().mean() for y in out)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mark(loss)
        mark(*model.parameters())
    x = np.random.default_rng(0).normal(size=(50, 70)).astype('f4')
    for y in (x @ x.T, np.exp(x), np.linalg.svd(x)[1]):
        marks.update(y.tobytes())
    return marks.hexdigest()[:16]


def representatives(chosen, flags):
    """{name: the setting that is run for it}: of the settings of instructions that compute the
    same the first one, or the plain run; any other setting stands for itself."""
    has, _ = parts(flags)
    kinds = {n for kind in ('aten', 'onednn', 'fpmath') for n in has[kind]}
    stands = {name: name for name in chosen}
    if not stands.keys() & kinds:
        return stands
    seen = {}
    asked = {n: env for n, env in chosen.items() if n in kinds}
    for name, env in ({'threads-1': has['threads']['threads-1']} | asked).items():
        command = [sys.executable, __file__, '--fingerprint']
        done = subprocess.run(command, env=environment(env), capture_output=True, text=True)
        if done.returncode:
            sys.exit(f'No fingerprint with {name}: {done.stderr.strip()[-300:]}')
        stands[name] = seen.setdefault(done.stdout.strip(), name)
    return {name: stands[name] for name in chosen}


# ---- notebooks

def code_of(path):
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    return [''.join(c['source']) for c in cells if c['cell_type'] == 'code']


def offered():
    "{name: module} of what the package itself offers, as its table says."
    tree = ast.parse((ROOT/'yolov3_nb'/'__init__.py').read_text(encoding='utf-8'))
    tables = [node.value for node in tree.body if isinstance(node, ast.Assign)
              and getattr(node.targets[0], 'id', '') == '_MODULES']
    return ast.literal_eval(tables[0])


def modules_in(source, inside):
    "Names of the library's modules that a source imports; `inside`: it is one of them itself."
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition('.')[2] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            name = node.module or ''
            if node.level and inside or name.startswith('yolov3_nb.'):
                found.add(name.removeprefix('yolov3_nb.'))
            if name == 'yolov3_nb' or node.level and not name:
                found |= {offered().get(alias.name, alias.name) for alias in node.names}
    return {name for name in found if (ROOT/'yolov3_nb'/f'{name}.py').exists()}


def library_of(path):
    "Files of the library that a notebook uses: those that it imports, and what these import."
    sources = ['\n'.join(line for line in cell.splitlines() if line[:1] != '%')
               for cell in code_of(path)]
    waiting, found = set(), {'__init__'}
    for source in sources:
        try:
            waiting |= modules_in(source, inside=False)
        except SyntaxError:  # a cell that only IPython can read: it may use any of them
            waiting |= {f.stem for f in (ROOT/'yolov3_nb').glob('*.py')}
    while waiting:
        name = waiting.pop()
        found.add(name)
        source = (ROOT/'yolov3_nb'/f'{name}.py').read_text(encoding='utf-8')
        waiting |= modules_in(source, inside=True) - found
    return [ROOT/'yolov3_nb'/f'{name}.py' for name in sorted(found)]


def digest(path):
    "What a result hangs on: the code of the notebook and of what it imports, processor, torch."
    from importlib.metadata import version
    h = hashlib.sha256('\0'.join(code_of(path)).encode())
    for f in library_of(path):
        h.update(f.read_bytes())
    h.update(f'{platform.machine()} {sorted(processor_flags())} {version("torch")}'.encode())
    return h.hexdigest()[:16]


def choose(named, only):
    "The notebooks to run: those named, or all of nbs/ that train or draw; the `only` ones."
    if not named:
        every = [p for p in sorted((ROOT/'nbs').rglob('*.ipynb')) if p.name[0] not in '._']
        named = [p for p in every if DRAWS.search('\n'.join(code_of(p)))]
    return [p.resolve() for p in named if not only or any(word in str(p) for word in only)]


# ---- one run, in a process of its own

def offset_seeds(n):
    "Add n to every whole number that seeds a generator."
    import numpy as np
    import torch

    def moved(seed):
        written = isinstance(seed, (int, np.integer)) and abs(seed) < 2**16  # and not drawn
        return seed + n if written else seed

    def seeding(function):
        def seeded(seed=None, *args, **kwargs):
            return function(moved(seed), *args, **kwargs)
        return seeded

    class Generator(torch.Generator):
        def manual_seed(self, seed):
            return super().manual_seed(moved(seed))

    class Random(random.Random):
        def __init__(self, seed=None):
            super().__init__(moved(seed))

    class RandomState(np.random.RandomState):
        def __init__(self, seed=None):
            super().__init__(moved(seed))

    torch.manual_seed = torch.random.manual_seed = seeding(torch.manual_seed)
    np.random.seed, np.random.default_rng = seeding(np.random.seed), seeding(np.random.default_rng)
    random.seed = seeding(random.seed)
    torch.Generator, random.Random, np.random.RandomState = Generator, Random, RandomState


def noisy_weights(scale):
    "Let each function of torch.nn.init that draws change what it drew, by about `scale` of itself."
    import torch
    from torch.nn import init

    def noisy(draw):
        def drawn(tensor, *args, **kwargs):
            tensor = draw(tensor, *args, **kwargs)
            if tensor.is_meta:
                return tensor
            with torch.no_grad():  # equal weights get equal noise, no other generator is touched
                seed = zlib.crc32(tensor.detach().float().contiguous().cpu().numpy().tobytes())
                noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))
                tensor.mul_(1 + scale * noise.to(tensor))
            return tensor
        return drawn

    for name in ('uniform_', 'normal_', 'trunc_normal_', 'xavier_uniform_', 'xavier_normal_',
                 'kaiming_uniform_', 'kaiming_normal_', 'orthogonal_', 'sparse_'):
        setattr(init, name, noisy(getattr(init, name)))


class GoOn(ast.NodeTransformer):
    "Put each top-level statement of a cell between `try` and `except`: what fails is reported."
    def visit_Module(self, tree):
        tree.body = [self.guarded(k, statement) for k, statement in enumerate(tree.body)]
        return ast.fix_missing_locations(tree)

    def guarded(self, k, statement):
        guard = ast.parse(f'try: pass\nexcept Exception as _error: _failed({k}, _error)').body[0]
        guard.body = [statement]
        return guard


def failed_line(source, k, error):
    "A failed assertion whole; of another statement the line in the cell where the error arose."
    statement = ast.parse(source).body[k]
    if isinstance(statement, ast.Assert):
        return ast.get_source_segment(source, statement)
    frames = list(traceback.walk_tb(error.__traceback__))  # the first one is the cell's
    cell = frames[0][0].f_code.co_filename
    line = [n for frame, n in frames if frame.f_code.co_filename == cell][-1]
    return source.splitlines()[line - 1].strip()


def run_cell(shell, cell, report):
    "Run a cell to its end, whatever fails on the way."
    source = shell.transform_cell(cell.source)

    def failed(k, error):
        line = source.strip().splitlines()[0] if k is None else failed_line(source, k, error)
        report(dict(cell=cell.get('id', '?'), check=line, error=type(error).__name__,
                    message=str(error).strip()[:300]))

    shell.user_ns['_failed'] = failed
    error = shell.run_cell(source)['exception']
    if error is not None:  # a cell that cannot be compiled, or that ends the program
        failed(None, error)


def skipper():
    "skip(cell): whether nbdev_test leaves the cell out."
    from nbdev.config import get_config
    skip_flags = set(get_config().tst_flags.split())

    def skip(cell):
        directives = getattr(cell, 'directives_', None) or {}
        not_run = directives.get('eval:', [''])[0].lower() == 'false'
        return cell.cell_type != 'code' or not_run or bool(skip_flags & directives.keys())
    return skip


def child(path, log):
    "Run one notebook under the settings of the environment, and append what fails to `log`."
    os.environ.update(IN_TEST='1', NO_ALBUMENTATIONS_UPDATE='1')
    import torch
    from execnb.shell import CaptureShell
    from nbdev.process import NBProcessor
    if seed := int(os.environ.get('SHAKE_SEED', 0)):
        offset_seeds(seed)
    if noise := float(os.environ.get('SHAKE_NOISE', 0)):
        noisy_weights(noise)

    def report(entry):
        with log.open('a', encoding='utf-8') as f:
            f.write(json.dumps(entry) + '\n')

    capability = torch.backends.cpu.get_cpu_capability()
    report(dict(threads=torch.get_num_threads(), capability=capability))
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)  # where nbdev finds settings.ini
    nb, skip = NBProcessor(path, process=True).nb, skipper()
    shell = CaptureShell(path)
    shell.ast_transformers.append(GoOn())
    os.chdir(path.parent)
    for cell in nb.cells:
        if not skip(cell):
            run_cell(shell, cell, report)
    report(dict(done=True))


# ---- all runs

RUNNING = set()  # the processes of the runs that are under way


def environment(setting):
    "The environment of a run: one thread and all that the processor has, but for the setting."
    ours = ('SHAKE_', 'ONEDNN_', 'ATEN_CPU_', 'MKL_', 'OMP_')
    env = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    env |= {'OMP_NUM_THREADS': '1', 'MKL_DYNAMIC': 'FALSE', 'OMP_WAIT_POLICY': 'PASSIVE'} | setting
    return env | {'MKL_NUM_THREADS': env['OMP_NUM_THREADS']}


def run(path, setting, minutes, log):
    "Run one notebook in a process of its own: what failed, the minutes, what it ran as."
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text('', encoding='utf-8')
    start, command = time.time(), [sys.executable, __file__, '--child', str(path), str(log)]
    process = subprocess.Popen(command, env=environment(setting), start_new_session=True, text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE)
    RUNNING.add(process)
    try:
        _, said = process.communicate(timeout=60 * minutes)
        ended = f'ended with status {process.returncode}: {said.strip()[-300:]}'
    except subprocess.TimeoutExpired:
        ended = f'not finished after {minutes:g} minutes'
    finally:
        stop(process)
        RUNNING.discard(process)
    entries = [json.loads(line) for line in log.read_text(encoding='utf-8').splitlines()]
    log.unlink()
    failed = [e for e in entries if 'check' in e]
    first, failed = failed[:1], failed[1:]  # a name that is missing later is missing because of it
    follow = [e for e in failed if e['error'] == 'NameError']
    failed = first + [e for e in failed if e not in follow]
    if {'done': True} not in entries:
        failed.append(dict(cell='-', check='the run', error='NotFinished', message=ended))
    ran_as = next((e for e in entries if 'capability' in e), {})
    minutes = round((time.time() - start) / 60, 2)
    return dict(failed=failed, follow=len(follow), minutes=minutes, **ran_as)


def stop(process):
    "End a run and all that it started."
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def failures(results, notebooks, names):
    "Lines: each check that failed, where, and what it said."
    failing = {}
    for path in notebooks:
        for name in names:
            for e in results[path, name]['failed']:
                failing.setdefault((path.name, e['cell'], e['check']), []).append((name, e))
    lines = []
    for (nb, cell, check), seen in failing.items():
        where = [name for name, _ in seen]
        first = seen[0][1]
        lines.append(f'\n{nb} · cell {cell} · {len(where)} of {len(names)}: {", ".join(where)}')
        lines += [f'    {line}' for line in check.splitlines()]
        lines.append(f"  {first['error']}: {first['message']}".rstrip(': '))
    follow = sum(results[path, name]['follow'] for path in notebooks for name in names)
    if follow:
        lines.append(f'\n{follow} statements could not run, for want of names made by these.')
    return lines, len(failing)


def table(results, notebooks, names, stands):
    """Lines: what each setting did to each notebook, and the minutes. `stands`: {setting: the one
    that was run for it}."""
    width = max(map(len, names))
    head = '  '.join(f'{p.stem[:12]:>12}' for p in notebooks)
    lines = [f'\n{"setting":{width}}  {head}   minutes']
    for name in names:
        if stands[name] != name:
            lines.append(f'{name:{width}}  computes the same as {stands[name]}, in every bit')
            continue
        row = [results[p, name] for p in notebooks]
        said = [f"{len(r['failed'])} failed" if r['failed'] else 'holds' for r in row]
        minutes = sum(r['minutes'] for r in row)
        cells = '  '.join(f'{s:>12}' for s in said)
        lines.append(f'{name:{width}}  {cells}  {minutes:8.1f}')
    return lines


def load(out):
    "What earlier calls found, by notebook, setting and digest."
    try:
        return json.loads(out.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}


def save(out, kept):
    out.parent.mkdir(parents=True, exist_ok=True)
    half = out.with_suffix('.tmp')
    half.write_text(json.dumps(kept, indent=1), encoding='utf-8')
    half.replace(out)


def shake(notebooks, chosen, minutes, out, anew=False, jobs=1):
    "Run what is not known yet, `jobs` runs at a time; {(notebook, setting): result}."
    kept, results, one_at_a_time = load(out), {}, threading.Lock()
    ending = threading.Event()  # what is killed at the end of this script has not failed
    marks = {path: digest(path) for path in notebooks}

    def known_or_run(path, name):
        key = f'{path.parent.name}/{path.name} {name} {marks[path]}'
        if anew or key not in kept:
            log = out.with_suffix(f'.{os.getpid()}.{threading.get_ident()}.log')
            found = run(path, chosen[name], minutes, log)
            if ending.is_set():
                return
            with one_at_a_time:
                kept[key] = found
                save(out, kept)
        r = results[path, name] = kept[key]
        said = ', '.join(dict.fromkeys(e['cell'] for e in r['failed'])) or 'holds'
        print(f"{path.name:22} {name:24} {r['minutes']:5.1f} min  {said}", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(known_or_run, path, name) for name in chosen for path in notebooks]
        try:
            for w in waiting:
                w.result()
        except BaseException:
            ending.set()
            for w in waiting:
                w.cancel()
            for process in list(RUNNING):
                stop(process)
            raise
    return results


def main(a):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the run that is under way, too
    chosen, lacking = settings(processor_flags())
    if lacking:
        print('Not tried, this processor lacks them:', ', '.join(lacking))
    if unknown := set(a.setting) - set(chosen):
        sys.exit(f'No such setting here: {", ".join(sorted(unknown))}; see --list.')
    if a.setting:
        chosen = {name: chosen[name] for name in a.setting}
    notebooks = choose(a.notebooks, a.only)
    if a.list:
        print('Settings:', *chosen, sep='\n  ')
        print('Notebooks:', *(os.path.relpath(p, ROOT) for p in notebooks), sep='\n  ')
        return 0
    if not notebooks:
        sys.exit('No notebook is left to run: look at --only and at the names given.')
    stands = representatives(chosen, processor_flags())
    every, _ = settings(processor_flags())
    chosen = chosen | {name: every[name] for name in stands.values()}
    stands |= {name: name for name in stands.values()}
    to_run = {name: env for name, env in chosen.items() if stands[name] == name}
    results = shake(notebooks, to_run, a.minutes, a.out, a.anew, a.jobs)
    lines, failing = failures(results, notebooks, list(to_run))
    print(*lines, *table(results, notebooks, list(chosen), stands), sep='\n')
    minutes = sum(r['minutes'] for r in results.values())
    print(f'{len(results)} runs, {minutes:.0f} minutes, {failing} checks that fail somewhere')
    return int(failing > 0)


def parser():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('notebooks', nargs='*', type=Path,
                   help='those of nbs/ that train or draw, when none is named')
    p.add_argument('--only', action='append', default=[], metavar='WORD',
                   help='only paths that contain WORD')
    p.add_argument('--setting', action='append', default=[], metavar='NAME',
                   help='only this setting')
    p.add_argument('--minutes', type=float, default=10., help='time limit of one run (10)')
    p.add_argument('--jobs', type=int, default=1, metavar='N',
                   help='runs at a time; about one for each core (1)')
    p.add_argument('--out', type=Path, default=ROOT/'runs'/'shake.json', help='keeps the results')
    p.add_argument('--anew', action='store_true', help='run again what is known')
    p.add_argument('--list', action='store_true', help='say what would run')
    return p


if __name__ == '__main__':
    if sys.argv[1:2] == ['--child']:
        child(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1:2] == ['--fingerprint']:
        print(fingerprint())
    else:
        sys.exit(main(parser().parse_args()))
