"""Kill commands at random moments, and see what is left: `python tools/kills.py [--kills 30]`.

Each trial starts a command on a tiny data set, and disturbs it: by SIGINT (to its whole process
group, as a terminal does), SIGTERM or SIGKILL at a random moment of its run, or by a disk that
takes only the first bytes of each file, a random number of them. Then it looks at four things:

- the process ends, with exit status 130, 143, by the signal or, for the disk, 2 and a sentence;
  it says no traceback, and leaves no process behind;
- every file that is left is whole: JSON parses, weights and checkpoints load, images decode, tables
  and pages have an end; what is unfinished hides behind a dot, or says so in its name;
- the same command, or the one that the program names (`yolov3_train --resume RUN`), goes on;
- it ends with the result of a run that nobody disturbed: the same bytes of weights and images, the
  same figures; and nothing unfinished is left.

    python tools/kills.py                    30 kills over all commands
    python tools/kills.py --only train --kills 6 --seed 3
    python tools/kills.py --disks 10 --kills 0

One process imports everything once and forks a process a run, so that a trial takes seconds. The
exit status is 1 where anything of this did not hold."""
import argparse
import contextlib
import csv
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import zlib
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('NO_ALBUMENTATIONS_UPDATE', '1')
ROOT = Path(__file__).resolve().parent.parent
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
DISK = 'full disk'
GRACE = 2  # seconds in which a command that gets a signal may come to its end
LATE = 3.  # share of an undisturbed run after which a command has ended
PATIENCE = 60  # seconds that a process has to end after a signal, and a whole run ten times as many
TRAIN = ('--data TOY --size 64 --width 0.0625 --epochs 2 --val_every 1 --batch 4 --workers 1 '
         '--anchors coco --no-progress --precision 32-true --accelerator cpu --out run')
COMMANDS = {  # name: function of `yolov3_nb.cli`, arguments
    'train': ('train', TRAIN),
    'eval': ('evaluate_weights', '--weights WEIGHTS --data TOY --batch 2 --results eval '
             '--save_detections found'),
    'predict': ('predict', 'TOY/VOCdevkit/VOC2007/JPEGImages --weights WEIGHTS --out seen --batch 2'
                ' --score 0 --max_detections 5 --no-progress'),
    'export': ('export_weights', '--weights WEIGHTS --out net.onnx'),
    'export folder': ('export_weights', '--weights WEIGHTS --format folder --out copy'),
    'download': ('data', 'download --out voc --years 2007 --mirror MIRROR'),
    'toy': ('data', 'toy --out drawn'),
    'import': ('data', 'import TOY imported'),
}
PARTS = {'train': 8, 'eval': 6, 'predict': 6, 'export': 4, 'export folder': 2, 'download': 6,
         'toy': 1, 'import': 1}


# ---- a server that hands out a small stand-in for PASCAL VOC -------------------------------------

def archive(ids, splits):
    "A tar of a tiny devkit, as bytes; its images are padding, since nobody looks into them."
    out = io.BytesIO()
    rng = random.Random(zlib.crc32(' '.join(splits).encode()))
    with tarfile.open(fileobj=out, mode='w') as t:
        def add(name, content):
            info = tarfile.TarInfo(f'VOCdevkit/VOC2007/{name}')
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
        for split in splits:
            add(f'ImageSets/Main/{split}.txt', '\n'.join(ids).encode())
        for name in ids:
            add(f'Annotations/{name}.xml', b'<annotation/>')
            add(f'JPEGImages/{name}.jpg', rng.randbytes(30_000))
    return out.getvalue()


TRAINVAL = 'train', 'val', 'trainval'
TARS = {'a.tar': archive([f'{i:06d}' for i in range(60)], TRAINVAL),
        'b.tar': archive([f'{i:06d}' for i in range(60, 90)], ('test',))}
ARCHIVES = {'2007': tuple(
    (name, hashlib.md5(TARS[name]).hexdigest(), len(TARS[name]), splits)
    for name, splits in (('a.tar', TRAINVAL), ('b.tar', ('test',))))}


class Slow(BaseHTTPRequestHandler):
    "Answers at three megabytes a second, from any byte on."

    def log_message(self, *args):
        pass

    def do_GET(self):
        content = TARS[self.path.split('/')[-1]]
        start = int((self.headers.get('Range') or 'bytes=0-')[6:].rstrip('-'))
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(content) - start))
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        self.end_headers()
        with contextlib.suppress(OSError):
            for at in range(start, len(content), 2**15):
                self.wfile.write(content[at:at + 2**15])
                time.sleep(.01)


# ---- one run of a command ------------------------------------------------------------------------

def child(main, argv, folder, log, ready, limit):
    "What the forked process does: the command, as a shell would start it."
    os.setpgrp()
    os.chdir(folder)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.argv = ['yolov3']  # what a sentence begins with
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    status = 1
    try:
        os.write(ready, b'.')
        main(argv)
        status = 0
    except SystemExit as e:
        status = e.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(pid, seconds):
    "Exit status as the shell would see it, negative for a signal; None where it did not end."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def is_alone(group, seconds=10):
    "Whether no process of a group is left, at once or after some seconds."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(.02)
    os.killpg(group, signal.SIGKILL)
    return False


def listen(fd, said):
    "Collect what a process and its children print, until the last of them has ended."
    with open(fd, 'rb') as pipe:
        said.append(pipe.read())


def run(main, argv, folder, number=None, after=0., limit=None):
    """Start a command, and send it a signal after some seconds, or limit the bytes of its files.

    Returns exit status, seconds, what it said, and faults."""
    (heard, ready), (out, log), said = os.pipe(), os.pipe(), []
    pid = os.fork()
    if not pid:
        child(main, argv, folder, log, ready, limit)
    os.close(ready)
    os.close(log)
    ears = threading.Thread(target=listen, args=(out, said), daemon=True)
    ears.start()
    os.read(heard, 1)
    os.close(heard)
    start, faults = time.monotonic(), []
    if number is None:
        status = wait(pid, 10 * PATIENCE)
        if limit is not None and status not in (0, 2):
            faults.append(f'exit status {status} on a full disk')
    else:
        status = wait_until(pid, start + after)
        if status is None:
            (os.killpg if number == signal.SIGINT else os.kill)(pid, number)
            status = wait(pid, PATIENCE)
            allowed = {-9} if number == signal.SIGKILL else {128 + number}
            more = time.monotonic() - start - after
            if status not in allowed | {0} or (status == 0 and more > GRACE):
                faults.append(f'exit status {status} {more:.1f} s after {number.name}')
    seconds = time.monotonic() - start
    if not is_alone(pid):
        faults.append('processes are left')
    ears.join(10)
    text = b''.join(said).decode(errors='replace')
    if faults:
        faults.append(f'it said: {text[-600:]}')
    if 'Traceback' in text:
        faults.append('a traceback: ' + text[text.index('Traceback'):][-700:])
    return status, seconds, text, faults


def wait_until(pid, moment):
    "Exit status of a process that ended before that moment; None: it still runs."
    while time.monotonic() < moment:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(.002)
    return None


# ---- what is left --------------------------------------------------------------------------------

def check_file(path):
    "Raises for a file that is not whole."
    ending = path.suffix
    if ending == '.json':
        json.loads(path.read_text('utf-8'))
    elif ending == '.safetensors':
        from safetensors.torch import load_file
        load_file(path)
    elif ending == '.ckpt':
        import torch
        torch.load(path, map_location='cpu', weights_only=True)
    elif ending in ('.png', '.jpg') and 'voc' not in path.parts:
        from PIL import Image
        with Image.open(path) as im:
            im.load()
    elif ending == '.onnx':
        import onnx
        onnx.checker.check_model(onnx.load(path))
    elif ending == '.html':
        if not path.read_text('utf-8').rstrip().endswith('</html>'):
            raise ValueError('it has no end')
    elif ending == '.csv' and 'run' not in path.parts:  # a log of a run grows; its reader knows
        rows = list(csv.reader(io.StringIO(path.read_text('utf-8'), newline='')))
        if not path.read_bytes().endswith(b'\n') or len(set(map(len, rows))) != 1:
            raise ValueError('it has no end')


def hidden(path, folder):
    return any(part.startswith('.') for part in path.relative_to(folder).parts)


def faults_of(folder):
    "A line for each file that is not whole; what hides behind a dot is not looked at."
    faults = []
    for path in sorted(folder.rglob('*')):
        if path.is_file() and not path.is_symlink() and not hidden(path, folder):
            try:
                check_file(path)
            except Exception as e:
                faults.append(f'{path.relative_to(folder)} is not whole: {type(e).__name__} '
                              f'{str(e)[:100]}')
    if (folder/'voc'/'VOCdevkit'/'VOC2007').exists():
        n = len(list((folder/'voc'/'VOCdevkit'/'VOC2007'/'JPEGImages').iterdir()))
        if n != 90:
            faults.append(f'the devkit has {n} of 90 images')
    for weights in folder.rglob('config.json'):
        if not hidden(weights, folder) and not weights.with_name('model.safetensors').exists():
            faults.append(f'{weights.parent.name} is half a weights folder')
    return faults


LEAVE_OUT = ('date', 'minutes', 'commit', 'versions', 'command', 'name')


def result(folder):
    "{file: digest} of what a command is for; of records the figures only."
    found = {}
    for path in sorted(folder.rglob('*')):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.is_symlink() or path.name == '.lock':
            continue
        data = path.read_bytes()
        if name.startswith('run/') and path.name not in ('metrics.json', 'model.safetensors'):
            continue
        if path.name in ('metrics.json', 'eval.json'):
            record = json.loads(data)
            record.get('settings', {}).pop('workers', None)  # a full disk is tried with none
            data = json.dumps({k: v for k, v in record.items() if k not in LEAVE_OUT}).encode()
        if path.suffix == '.onnx':
            data = numbers_of_onnx(path)
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def numbers_of_onnx(path):
    "What the network computes, as bytes: the file itself may name things as it likes."
    import numpy as np
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    x = np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)
    return b''.join(out.tobytes() for out in session.run(None, {'images': x}))


# ---- trials --------------------------------------------------------------------------------------

class Trials:
    "Commands with their undisturbed runs; `disturb` disturbs one."

    def __init__(self, home, port):
        import onnx  # noqa: F401, here and below: paid once, and not by each process
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
        import torch

        from yolov3_nb import cli, evaluation, export, learner, training  # noqa: F401
        from yolov3_nb.download import download_voc
        from yolov3_nb.model import YOLOv3
        from yolov3_nb.toyvoc import make_toyvoc
        torch.set_num_threads(1)
        self.home, self.cli, self.known = home, cli, {}
        cli.VOC_MIRRORS = ()
        cli.download_voc = partial(download_voc, archives=ARCHIVES, progress=False, patience=.01)
        toy = make_toyvoc(home/'toy', n_trainval=16, n_test=8, workers=1, progress=False)
        cli.make_toyvoc = partial(make_toyvoc, n_trainval=12, n_test=4, workers=1, progress=False)
        torch.manual_seed(0)
        model = YOLOv3(20, .0625, image_size=64).eval()
        model.save_pretrained(home/'weights')
        self.words = {'TOY': str(toy), 'WEIGHTS': str(home/'weights'),
                      'MIRROR': f'http://127.0.0.1:{port}'}

    def argv(self, line):
        for word, meaning in self.words.items():
            line = line.replace(word, meaning)
        return line.split()

    def undisturbed(self, name):
        "Seconds and result of the command when nobody kills it."
        if name not in self.known:
            main, line = COMMANDS[name]
            folder = Path(tempfile.mkdtemp(dir=self.home))
            status, seconds, said, faults = run(getattr(self.cli, main), self.argv(line), folder)
            if status or faults:
                raise SystemExit(f'{name} does not even run undisturbed: {status} {faults} {said}')
            largest = max(f.stat().st_size for f in folder.rglob('*') if f.is_file())
            self.known[name] = seconds, largest, result(folder)
        return self.known[name]

    def disturb(self, name, number, share):
        "Whether it had ended, what was left was whole, it went on to the same result; the faults."
        seconds, largest, wanted = self.undisturbed(name)
        main, line = COMMANDS[name]
        main, argv = getattr(self.cli, main), self.argv(line)
        folder = Path(tempfile.mkdtemp(dir=self.home))
        if number == DISK:
            limit = round(largest ** share)  # small ones as often as large ones
            # the limit would hold for the memory that workers share, too, which is no disk
            alone = ['0' if before == '--workers' else word
                     for before, word in zip(['', *argv], argv)]
            status, _, said, faults = run(main, alone, folder, limit=limit)
            if status and not any(line.startswith('yolov3: ') for line in said.splitlines()):
                faults.append(f'no sentence: {said[-300:]}')
        else:
            status, _, said, faults = run(main, argv, folder, number, share * seconds)
        broken = faults_of(folder)
        if name == 'train' and (folder/'run'/'settings.json').exists():
            argv = ['--resume', 'run', '--no-progress']
        again, _, said, more = run(main, argv, folder)
        left = [path.name for path in folder.rglob('.*') if path.name != '.lock']
        if left:
            more.append(f'left over: {left}')
        differs = sorted(dict(result(folder).items() ^ wanted.items()))
        stays = again == 2 and not differs  # it had come to its end, and is not written over
        if again and not stays:
            more.append(f'exit status {again} of the same command: {said[-300:]}')
        if differs:
            more.append(f'another result: {differs[:4]}')
        if not faults + broken + more:
            shutil.rmtree(folder)
        return status == 0, not faults + broken, not more, faults + broken + more


def plan(kills, disks, only, seed):
    "A list of (command, signal or `DISK`, share of its run or of the disk), spread evenly."
    rng = random.Random(seed)
    names = [name for name in COMMANDS if not only or name in only]
    total = sum(PARTS[name] for name in names)
    trials = []
    for name in names:
        for wanted, kinds in ((kills, SIGNALS), (disks, (DISK,))):
            n = max(1, round(wanted * PARTS[name] / total)) if wanted else 0
            shares = [(k + rng.random()) / n for k in range(n)]
            rng.shuffle(shares)
            first = rng.randrange(3)
            trials += [(name, kinds[(first + k) % len(kinds)], share)
                       for k, share in enumerate(shares)]
        if kills:  # a signal that comes too late
            trials.append((name, signal.SIGTERM, LATE))
    return trials


def table(counts):
    "Lines: a row a command, a column a kind: tried, whole, went on to the same result."
    kinds = [kind for kind in (*SIGNALS, DISK) if any(kind == k for _, k in counts)]
    names = list(dict.fromkeys(name for name, _ in counts))

    def cell(names, kinds):
        found = [count for (name, kind), count in counts.items() if name in names and kind in kinds]
        return ' / '.join(str(sum(column)) for column in zip(*found)) or '–'

    rows = [('command', *(getattr(kind, 'name', kind) for kind in kinds), 'all')]
    for label, group in (*((name, [name]) for name in names), ('all', names)):
        rows.append((label, *(cell(group, [kind]) for kind in kinds), cell(group, kinds)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ['  '.join(text.ljust(w) for text, w in zip(row, widths)).rstrip() for row in rows]


def main(kills, disks, only, seed):
    server = ThreadingHTTPServer(('127.0.0.1', 0), Slow)
    server.handle_error = lambda *_: None  # lines that we have cut ourselves
    threading.Thread(target=server.serve_forever, args=(.05,), daemon=True).start()
    start, counts, failed = time.monotonic(), {}, 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        trials = Trials(Path(home), server.server_port)
        for name, kind, share in plan(kills, disks, only, seed):
            ended, whole, same, faults = trials.disturb(name, kind, share)
            seconds, largest, _ = trials.undisturbed(name)
            when = f'after {share * seconds:.2f} of {seconds:.2f} s'
            if kind == DISK:
                when = f'at {round(largest ** share)} bytes'
            print(f'{name}, {getattr(kind, "name", kind)} {when}{", which did not hurt" * ended}: '
                  f'{"; ".join(faults) or "went on to the same result"}', flush=True)
            count = counts.setdefault((name, kind), [0, 0, 0])
            for k, value in enumerate((True, whole, same)):
                count[k] += value
            failed += bool(faults)
    print('\ntried / whole / went on to the same result')
    print('\n'.join(table(counts)))
    tried = sum(count[0] for count in counts.values())
    print(f'{tried} trials, {failed} with a fault, {(time.monotonic() - start) / 60:.1f} minutes')
    return int(failed > 0)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--kills', type=int, default=30, help='by signals')
    p.add_argument('--disks', type=int, default=0, help='runs on a full disk')
    p.add_argument('--only', action='append', choices=list(COMMANDS))
    p.add_argument('--seed', type=int, default=18)
    a = p.parse_args()
    sys.path.insert(0, str(ROOT))
    sys.exit(main(a.kills, a.disks, a.only, a.seed))
