"""Draw the picture of the front page, nbs/home.jpg: `python tools/home.py`.

The course's picture, the cells and anchors that answer for its objects, what the network in
weights/toy finds on it, and where it looked for one of these boxes. It is kept as a file, because
README shows it too; run this again when weights/toy changes."""
import sys
from pathlib import Path
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SIDE, GAP = (540, 405), 18  # of a panel and between two, pixels

def boxes_named(img, boxes, labels, scores=()):
    """A copy at the size of a panel, with frames and names. On the page it is less than half as
    wide, and the letters can still be read."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont
    from yolov3_nb.drawing import class_color, ink_on
    from yolov3_nb.toyvoc import VOC_CLASSES
    fonts = Path(matplotlib.get_data_path())/'fonts'/'ttf'
    font = ImageFont.truetype(str(fonts/'DejaVuSans-Bold.ttf'), 28)
    sheet = Image.fromarray(img).resize(SIDE, Image.LANCZOS)
    draw, ratio = ImageDraw.Draw(sheet), SIDE[0]/img.shape[1]
    for i, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist())):
        x1, y1, x2, y2 = (ratio*v for v in box)
        text = VOC_CLASSES[label] + (f' {scores[i]:.2f}' if len(scores) else '')
        wide = draw.textlength(text, font) + 12
        left = min(max(x1, 0), SIDE[0] - wide)
        ink = ink_on(class_color(label))
        draw.rectangle([x1, y1, x2, y2], outline=class_color(label), width=5)
        draw.rectangle([left, y1 - 36, left + wide, y1], fill=class_color(label))
        draw.text((left + 6, y1 - 18), text, ink, font, anchor='lm')
    return np.asarray(sheet)

def panels():
    "Four pictures (H, W, 3) uint8."
    import torch
    from PIL import Image, ImageDraw
    from yolov3_nb.anchors import encode
    from yolov3_nb.augment import apply_transform, test_transform, unletterbox_boxes
    from yolov3_nb.boxes import cxcywh_to_xyxy
    from yolov3_nb.data import VOCDataset, class_color
    from yolov3_nb.gradcam import heat_map, overlay
    from yolov3_nb.model import YOLOv3, detect
    from yolov3_nb.toyvoc import COURSE_IMAGE, make_toyvoc
    ds = VOCDataset(make_toyvoc(), [('2007', 'val')])
    img, target = ds[ds.ids.index(COURSE_IMAGE)]
    model = YOLOv3.from_pretrained(ROOT/'weights'/'toy').eval()
    size, hw = model.image_size, img.shape[:2]
    x, inside = apply_transform(test_transform(size), img, target)
    # the coarse one (3, rows, cols, 6)
    grid = encode([inside], model.anchors, size)[0][0]
    sheet = Image.fromarray(img)
    draw = ImageDraw.Draw(sheet, 'RGBA')
    def place(box):
        return unletterbox_boxes(torch.tensor([box], dtype=torch.float32), hw, size)[0].tolist()
    for anchor, row, col in (grid[..., 4] == 1).nonzero().tolist():
        px, py, _, _, _, label = grid[anchor, row, col].tolist()
        color = class_color(int(label))
        draw.rectangle(place([col * 32, row * 32, col * 32 + 32, row * 32 + 32]),
                       fill=(*color, 110))
        draw.rectangle(
            place(cxcywh_to_xyxy(torch.tensor([(col + px) * 32, (row + py) * 32,
                                               *model.anchors[0, anchor].tolist()])).tolist()),
            outline=color, width=4)
    for i in range(0, size + 1, 32):
        draw.line(place([i, 0, i, size]), fill=(255, 255, 255, 220), width=2)
        draw.line(place([0, i, size, i]), fill=(255, 255, 255, 220), width=2)
    with torch.no_grad():
        found = detect(model(x[None]), model, 0.3)[0]
    boxes = unletterbox_boxes(found['boxes'], hw, size)
    first = {k: v[:1] for k, v in found.items()}
    labels, scores = found['labels'], found['scores'].tolist()
    heat = overlay(img, heat_map(model, img, first))
    return [img, np.asarray(sheet), boxes_named(img, boxes, labels, scores),
            boxes_named(heat, boxes[:1], labels[:1])]

def main():
    from PIL import Image
    sheet = Image.new('RGB', (4*SIDE[0] + 3*GAP, SIDE[1]), 'white')
    for i, panel in enumerate(panels()):
        sheet.paste(Image.fromarray(panel).resize(SIDE, Image.LANCZOS), (i*(SIDE[0] + GAP), 0))
    sheet.save(ROOT/'nbs'/'home.jpg', quality=82, optimize=True)

if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    main()
