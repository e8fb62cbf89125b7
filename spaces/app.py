"The app of the course yolov3_nb as a Space, written by yolov3_app --make_space."
import os
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
# The library is Python only, which runs out of its wheel;
# a Space installs requirements.txt before the wheel is there.
sys.path.insert(0, str(next(here.glob('yolov3_nb-*.whl'))))
from yolov3_nb.app import serve

serve(here/'weights', host=os.environ.get('GRADIO_SERVER_NAME', '127.0.0.1'),
      photographs=here/'photographs',
      about='It knows 20 classes, and was trained on 1,700 **drawings** (`toyvoc-train`). On 500 others (`toyvoc-test`) its mAP at IoU 0.5 is **0.86**, from 0.73 (bottle) to 0.98 (motorbike). A photograph is something that it has never seen: see what it makes of one, and why.')
