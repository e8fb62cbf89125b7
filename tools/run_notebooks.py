"""Run notebooks and keep what they print and draw: `python tools/run_notebooks.py [--flags 'slow'] [NB ...]`.

The same cells are skipped as by `nbdev_test` (`#| eval: false`, and those flagged `slow` or `cuda` unless asked for);
a skipped cell keeps the output that it has. Stops at the first error and then leaves that notebook as it was."""
import argparse, json, os, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

def run(path, flags):
    os.environ.update(IN_TEST='1', NO_ALBUMENTATIONS_UPDATE='1')
    from execnb.nbio import read_nb
    from execnb.shell import CaptureShell
    from nbdev.clean import clean_nb
    from nbdev.config import get_config
    from nbdev.process import NBProcessor
    skip_flags = set(get_config().tst_flags.split()) - set(flags.split())
    processed = NBProcessor(path, process=True).nb  # a second reading, only for its directives
    nb = read_nb(path)
    shell = CaptureShell(path, mpl_format='png')
    sys.path.insert(0, str(ROOT))
    os.chdir(path.parent)

    def skip(cell):
        if cell.cell_type != 'code': return True
        directives = getattr(processed.cells[cell.idx_], 'directives_', None) or {}
        if directives.get('eval:', [''])[0].lower() == 'false': return True
        return bool(skip_flags & directives.keys())

    for cell in nb.cells:
        if not skip(cell): cell['outputs'] = []  # what a cell printed once and no longer does is gone
    start = time.time()
    try: shell.run_all(nb, exc_stop=True, preproc=skip)
    except BaseException:
        print(shell.prettytb(fname=path), file=sys.stderr)
        return 1
    raw = json.loads(path.read_text(encoding='utf-8'))
    for old, new in zip(raw['cells'], nb.cells):
        if old['cell_type'] != 'code': continue
        old['outputs'] = json.loads(json.dumps(new.get('outputs', []), default=str))
        for o in old['outputs']:
            if o.get('output_type') in ('display_data', 'execute_result'): o['metadata'] = {}
    clean_nb(raw, clean_ids=get_config().clean_ids)  # as nbdev_clean leaves it
    path.write_text(json.dumps(raw, sort_keys=True, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    print(f'{path.name}: {time.time() - start:.0f} s, {path.stat().st_size / 1024:.0f} kB')
    return 0

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('notebooks', nargs='*', type=Path, help='all of nbs/ when none is named')
    p.add_argument('--flags', default='', help="cell flags to run too, e.g. 'slow cuda'")
    a = p.parse_args()
    todo = a.notebooks or sorted((ROOT/'nbs').glob('**/*.ipynb'))
    if len(todo) == 1: sys.exit(run(todo[0].resolve(), a.flags))
    sys.exit(max(subprocess.call([sys.executable, __file__, str(f), '--flags', a.flags]) for f in todo))
