"""Draw the picture of the front page, nbs/home.jpg: `python tools/home.py`.

The course's picture, the cells and anchors that answer for its objects, what the network in
weights/toy finds on it, and where it looked for one of these boxes. It is kept as a file, because
README shows it too; run this again when weights/toy changes."""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

def panels():
    "Four pictures (H, W, 3) uint8 of one size."
    import numpy as np
    import torch
    from PIL import Image, ImageDraw
    from yolov3_nb.anchors import encode
    from yolov3_nb.augment import apply_transform, test_transform, unletterbox_boxes
    from yolov3_nb.boxes import cxcywh_to_xyxy
    from yolov3_nb.data import VOCDataset, class_color, draw_boxes
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
        found = detect(model(x[None]), model, 0.25)[0]
    boxes = unletterbox_boxes(found['boxes'], hw, size)
    first = {k: v[:1] for k, v in found.items()}
    return [img, np.asarray(sheet), draw_boxes(img, boxes, found['labels'], found['scores']),
            draw_boxes(overlay(img, heat_map(model, img, first)), boxes[:1], found['labels'][:1])]

def main():
    from PIL import Image
    side, gap = (360, 270), 12
    sheet = Image.new('RGB', (4 * side[0] + 3 * gap, side[1]), 'white')
    for i, panel in enumerate(panels()):
        sheet.paste(Image.fromarray(panel).resize(side, Image.LANCZOS), (i * (side[0] + gap), 0))
    sheet.save(ROOT/'nbs'/'home.jpg', quality=82, optimize=True)

if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    main()
