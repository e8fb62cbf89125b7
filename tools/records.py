"""Make the tables of nbs/records.qmd, the records page: `python tools/records.py [--check]`.

Each row is one file of results/ that one command has written. Rows are grouped by the images that
they were measured on and sorted by mAP. The prose around the tables is kept as it stands. `--check`
writes nothing and fails where the page is out of date."""
import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT/'nbs'/'records.qmd'
TESTS = {'toyvoc-test': 'ToyVOC, 500 test images',
         'voc07-test': 'PASCAL VOC 2007, 4,952 test images'}
BLOB = 'https://github.com/yolov3-nb/yolov3_nb/blob/main/results'
BEGIN = '<!-- made by tools/records.py: begin -->\n'
END = '<!-- made by tools/records.py: end -->\n'


def results():
    "The files of results/ that hold one measured training run, by name."
    found = {}
    for file in sorted((ROOT/'results').glob('*.json')):
        r = json.loads(file.read_text(encoding='utf-8'))
        trained = 'yolov3_train' in r.get('command', '') or r.get('stages')
        if trained and (r.get('metrics') or {}).get('map50'):
            found[file.stem] = r
    return found


def images_seen(r):
    "Training images seen: recorded, or epochs times images; None where neither is known."
    seen = r.get('images_seen')
    epochs = (r.get('settings') or {}).get('epochs')
    if not seen and epochs:
        seen = epochs * r['data']['n_train']
    return seen


def device(r):
    "Device, processor and precision, as far as the file says."
    parts = [r['device'], r.get('processor'), r.get('precision')]
    return ', '.join(p for p in parts if p)


def stages(r):
    "How many runs a training in stages had, for the table."
    return f" of weights from {len(r['stages'])} runs" if r.get('stages') else ''


def row(name, r):
    "A line of the table."
    m, net = r['metrics'], r['model']
    accuracies = ' / '.join(f'{m[k]:.1f}' for k in ('class_acc', 'noobj_acc', 'obj_acc'))
    command = r['command'].split(' --results')[0].replace('|', '\\|')
    seen = images_seen(r)
    images = f'{seen:,}' if seen else '–'
    minutes = '–' if r['minutes'] is None else f"{r['minutes']:.0f}"
    cells = [f"{m['map50']:.3f}", accuracies, minutes, images, device(r),
             f"{net['parameters'] / 1e6:.1f} M, {net['image_size']} px",
             f'[`{command}`]({BLOB}/{name}.json){stages(r)}']
    return f"| {' | '.join(cells)} |"


# styles.css keeps the figures of such a table in one line each
TABLE = '::: {{.records}}\n\n{}\n\n:::\n'
HEAD = ('| mAP@0.5 | class / no-object / object, % | minutes | images seen | device | network '
        '| run |\n| ---: | --- | ---: | ---: | --- | --- | --- |')
LADDER = """| recipe | mAP@0.5, validation | class / object, % | seeds | core minutes a run |
| --- | ---: | --- | ---: | ---: |"""


def mean(values):
    return sum(values) / len(values)


def ladder(name):
    "The rungs of one ladder, each a line."
    file = ROOT/'results'/f'{name}.json'
    if not file.exists():
        return ''
    r = json.loads(file.read_text(encoding='utf-8'))
    made = f"`{r['command']}` ([file]({BLOB}/{name}.json)), {device(r)}"
    lines = [LADDER]
    for rung in r['rungs']:
        accuracies = ' / '.join(f'{mean(rung[k]):.1f}' for k in ('class_acc', 'obj_acc'))
        cells = [rung['name'], f"{mean(rung['map50']):.3f}", accuracies, str(len(rung['seeds'])),
                 f"{mean(rung['cpu_minutes']):.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return f'\n### {name}\n\n{made}\n\n' + TABLE.format('\n'.join(lines))


def budget():
    "What a run had learnt after so many images, beside figures that others published."
    curve = json.loads((ROOT/'results'/'voc0712_curve.json').read_text(encoding='utf-8'))
    rows = []
    for p in curve['points']:
        end = 'on the way' if p['left_at'] is None else f"rate fallen from {p['left_at']:,} on"
        who = f"[this course]({BLOB}/voc0712_curve.json), {end}"
        network = f"width {p['model']['width']:g}, {p['size']} px"
        rows.append((p['images_seen'], who, 'random', network, p['metrics'] | dict(ap='area')))
    r = results()['voc07']
    network = f"width {r['model']['width']:g}, {r['model']['image_size']} px"
    rows.append((images_seen(r), f'[this course]({BLOB}/voc07.json), VOC 2007 alone', 'random',
                 network, r['metrics'] | dict(ap='area')))
    published = json.loads((ROOT/'results'/'published.json').read_text(encoding='utf-8'))
    for r in published['rows']:
        seen = r['epochs'] and 16551 * r['epochs']
        network = f"{r['network']}, {r['image_size']} px"
        rows.append((seen, f"[{r['who']}]({r['source']})", r['start'], network, r))
    rows.sort(key=lambda row: (row[0] is None, row[0]))
    lines = ['| images seen | mAP@0.5 | class / no-object / object, % | average precision by '
             '| network | begins with weights | who |',
             '| ---: | ---: | --- | --- | --- | --- | --- |']
    for seen, who, start, network, m in rows:
        images = f'{seen:,}' if seen else 'not said'
        accuracies = '–'
        if m['class_acc'] is not None:
            accuracies = ' / '.join(f'{m[k]:.1f}' for k in ('class_acc', 'noobj_acc', 'obj_acc'))
        lines.append(f"| {images} | {m['map50']:.3f} | {accuracies} | {m['ap'] or 'not said'} "
                     f'| {network} | {start} | {who} |')
    return '\n'.join(lines)


BUDGET = """
## What each budget buys

All rows are measured on VOC 2007 test. Ours belong to one training on 11,242 images of VOC 2007 and
of a part of 2012, made in several runs, each from the weights of one before: *on the way* says that
the learning rate was still high. The rows of others are what they published, and nobody ran them
again for this page; images seen are epochs times 16,551. *Trapezoids* are those under the raw
points of the curve, of boxes ranked by objectness alone ([09 evaluation](09_evaluation.ipynb)).
[14 speed](14_speed.ipynb) draws this table and says what to make of it.

"""


def tables():
    "What stands between the two marks of the page."
    parts, rows = [], results()
    for test, title in TESTS.items():
        own = [(n, r) for n, r in rows.items() if r['data'].get('test') == test]
        own.sort(key=lambda item: -item[1]['metrics']['map50'])
        lines = [HEAD, *(row(*item) for item in own)]
        parts.append(f'\n## {title}\n\n' + TABLE.format('\n'.join(lines)))
    parts += [BUDGET, TABLE.format(budget()).replace('{.records}', '{.records .budget}')]
    parts += ['\n## Short runs, rung by rung\n\nEach rung adds one change to the recipe before '
              'it, and is measured on validation images after a few epochs. Compare rungs of one '
              'ladder only.\n', ladder('ladder_toy'), ladder('ladder_voc')]
    return ''.join(parts) + '\n'


def main(check):
    old = PAGE.read_text(encoding='utf-8')
    head, rest = old.split(BEGIN)
    new = head + BEGIN + tables() + END + rest.split(END)[1]
    if check:
        return 'Out of date; run: python tools/records.py' if new != old else 0
    PAGE.write_text(new, encoding='utf-8')
    return 0


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--check', action='store_true',
                   help='fail where the page is out of date, and change nothing')
    sys.exit(main(p.parse_args().check))
