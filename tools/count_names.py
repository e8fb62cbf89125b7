"""Count lines and public names by module: `python tools/count_names.py [REV ...]`.

A row a module; a pair of columns a revision of the library, by default that of the working tree.
Public is what `__all__` offers; a name that a module hands on from another counts there, too."""
import argparse
import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = 'yolov3_nb'


def git(*args):
    "What git answers."
    done = subprocess.run(['git', *args], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def sources(rev=None):
    "{module: text} of the library at a revision; None: of the working tree."
    if rev is None:
        files = (ROOT/PACKAGE).glob('*.py')
        texts = {file.stem: file.read_text(encoding='utf-8') for file in files}
    else:
        names = git('ls-tree', '--name-only', rev, f'{PACKAGE}/').split()
        texts = {Path(name).stem: git('show', f'{rev}:{name}')
                 for name in names if name.endswith('.py')}
    return {name: text for name, text in texts.items() if not name.startswith('_')}


def public_names(text):
    "What a module's `__all__` lists."
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__':
            return ast.literal_eval(node.value)
    return []


def main(revs):
    columns = [{name: (text.count('\n'), len(public_names(text)))
                for name, text in sources(rev).items()} for rev in revs or [None]]
    heads = ' | '.join(f'lines ({rev or "here"}) | names' for rev in revs or [None])
    print(f'| module | {heads} |')
    print('| --- |' + ' ---: |' * 2 * len(columns))
    for name in sorted(set().union(*columns)):
        cells = [f'{column[name][0]:,} | {column[name][1]}' if name in column else '– | –'
                 for column in columns]
        print(f'| {name} | ' + ' | '.join(cells) + ' |')
    sums = [' | '.join(f'{sum(part):,}' for part in zip(*column.values())) for column in columns]
    print('| **all** | ' + ' | '.join(sums) + ' |')


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('revs', nargs='*', metavar='REV', help='revisions to count at')
    sys.exit(main(p.parse_args().revs))
