"""Write the cards of the weights that the project ships: `python tools/cards.py [--check]`.

A card is the README.md of a folder of weights/: what the weights are, how they were made, how good
they were measured to be, and how to use them. Its figures come from the file in results/ that the
training wrote. `--check` writes nothing and fails where a card is out of date."""
import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = {'toy': 'toy', 'voc': 'voc0712', 'voc07': 'voc07'}  # folder: file in results/
BLOB = 'https://github.com/yolov3-nb/yolov3_nb/blob/main/results'
DATA = {'toyvoc': "ToyVOC, the course's drawings", 'voc07': 'photographs of PASCAL VOC 2007',
        'voc0712': 'photographs of PASCAL VOC 2007 and of a part of 2012'}
RIGHTS = {
    True: 'The drawings are made by the course itself and are under the same licence as the code.',
    False: 'The photographs of PASCAL VOC come from Flickr and are offered for research. They are '
           'no part of this project; look at their terms before you use these weights for '
           'anything else.'}
CARD = """---
license: apache-2.0
library_name: yolov3_nb
pipeline_tag: object-detection
tags:
- model_hub_mixin
- pytorch_model_hub_mixin
- yolov3
---
# `{folder}`: a YOLOv3 trained on {what}

A YOLOv3 of {width:g} times the published width ({parameters:.1f} million parameters), for square
inputs of {size} pixels and the twenty classes of PASCAL VOC. It was trained from random weights by
[the course yolov3_nb](https://github.com/yolov3-nb/yolov3_nb).

```python
from yolov3_nb import YOLOv3, detect_images
from yolov3_nb.data import read_image

model = YOLOv3.from_pretrained('weights/{folder}').eval()
found, = detect_images(model, [read_image('photo.jpg')])  # boxes, labels, scores
```

## How good it is

Measured on {n_test:,} images that it was not trained on (`{test}`):

| class accuracy | no-object accuracy | object accuracy | mAP@0.5 | COCO AP |
| ---: | ---: | ---: | ---: | ---: |
| {class_acc:.2f} % | {noobj_acc:.2f} % | {obj_acc:.2f} % | {map50:.3f} | {map_coco:.3f} |

By class, AP@0.5 goes from {worst_ap:.2f} ({worst}) to {best_ap:.2f} ({best}). A score says how
sure the network is, and not how often it is right.

## How it was made

{how}

The whole record, with versions and seed: [results/{record}.json]({blob}/{record}.json).

## Rights

{rights}
"""


def made(r):
    "How a training went, in one paragraph."
    images = f"{r['data']['n_train']:,} images (`{r['data']['train']}`)"
    if not r.get('stages'):
        return (f"One run on {images}, {r['minutes']:.0f} minutes on {r['device']}:\n\n"
                f"```sh\n{r['command']}\n```")
    lines = ['| images seen | side of the input | optimiser | rate |',
             '| ---: | ---: | --- | --- |']
    for s in r['stages']:
        rate = f"{s['lr']:g}, {'falls' if s['decay'] > .5 else 'level'}"
        lines.append(f"| {s['images']:,} | {s['size']} | {s['optimizer']} | {rate} |")
    table = '\n'.join(lines)
    return (f"{r['images_seen']:,} images seen, of {images}, in {len(r['stages'])} runs. Each "
            f"later one began with the weights of the one before.\n\n{table}")


def card(folder):
    "The text of one card."
    record = WEIGHTS[folder]
    r = json.loads((ROOT/'results'/f'{record}.json').read_text(encoding='utf-8'))
    toy = r['data']['train'].startswith('toyvoc')
    m, ap = r['metrics'], r['metrics']['ap50']
    best, worst = max(ap, key=ap.get), min(ap, key=ap.get)
    return CARD.format(
        folder=folder, record=record, blob=BLOB, what=DATA['toyvoc' if toy else record],
        width=r['model']['width'], size=r['model']['image_size'],
        parameters=r['model']['parameters'] / 1e6, n_test=r['data']['n_test'],
        test=r['data']['test'], best=best, best_ap=ap[best], worst=worst, worst_ap=ap[worst],
        how=made(r), rights=RIGHTS[toy], **{key: m[key] for key in (
            'class_acc', 'noobj_acc', 'obj_acc', 'map50', 'map_coco')})


def main(check):
    stale = []
    for folder in WEIGHTS:
        file = ROOT/'weights'/folder/'README.md'
        text = card(folder)
        if check and file.read_text(encoding='utf-8') != text:
            stale.append(str(file.relative_to(ROOT)))
        elif not check:
            file.write_text(text, encoding='utf-8')
    if stale:
        sys.exit(f"{', '.join(stale)}: out of date; run python tools/cards.py.")


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--check', action='store_true', help='fail where a card is out of date')
    main(p.parse_args().check)
