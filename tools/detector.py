"""Make what the page "The detector" loads: `python tools/detector.py [--out DIR] [--examples 24]`.

Writes nbs/detector/build/, which git ignores: the networks of weights/ as ONNX, their kernels
stored in 16 and in 8 bits; ONNX Runtime Web from its npm package; some of ToyVOC's test images;
and `site.json`, which describes them. `tools/site.py` calls it; with Quarto run it before
`nbdev_docs`. Where npm or its registry is missing, the page is built all the same and says that
it cannot run."""
import argparse
import base64
import copy
import gzip
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT/'nbs'/'detector'/'build'
RUNTIME = 'onnxruntime-web@1.30.0'
SHA512 = ('q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02V'
          'b7QmRMDs1SigqR4CXAfKYQ==')
SCRIPT, BINARY = 'ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm'
NETWORKS = {'toy': 'toy', 'voc': 'voc0712'}  # a folder of weights/: the file of results/ on it
FIRST = '002018.jpg'  # the example that the page opens with
SMALL = 1024  # an array with fewer numbers than this stays in 32 bits


class NoRuntime(Exception):
    "Why an npm package could not be had, in one sentence for the page."


def fetch_package(name, sha512, folder):
    "Download an npm package and check it; its path."
    npm = shutil.which('npm')
    if not npm:
        raise NoRuntime('npm was not installed where this site was built.')
    command = [npm, 'pack', name, '--prefer-offline', '--silent',
               '--pack-destination', str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=300)
    except subprocess.TimeoutExpired:
        raise NoRuntime(f'npm did not fetch {name} within five minutes.') from None
    package = next(Path(folder).glob('*.tgz'), None)
    if done.returncode or not package:
        raise NoRuntime(f'npm could not fetch {name} when this site was built.')
    if base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() != sha512:
        raise NoRuntime(f'What npm fetched as {name} is not that package.')
    return package

def fetch_runtime(folder):
    "The npm package of ONNX Runtime Web: its path."
    return fetch_package(RUNTIME, SHA512, folder)

def write_runtime(out):
    "Put the runtime's script and its WebAssembly, gzipped, into `out`; what the page must know."
    with tempfile.TemporaryDirectory() as tmp, tarfile.open(fetch_runtime(tmp)) as package:
        script, binary = (package.extractfile(f'package/dist/{name}').read()
                          for name in (SCRIPT, BINARY))
    binary = gzip.compress(binary, 9, mtime=0)
    name = f'{BINARY}.bin'  # no server unpacks it by its ending: the page does so itself
    (out/SCRIPT).write_bytes(script)
    (out/name).write_bytes(binary)
    return {'package': RUNTIME, 'script': SCRIPT, 'binary': name,
            'bytes': len(script) + len(binary)}


def store_in_16_bits(array, name):
    "A half-precision initialiser, and the node that makes it 32 bits wide again."
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper
    short = f'{name}.16'
    tensor = numpy_helper.from_array(array.astype(np.float16), short)
    return [tensor], [helper.make_node('Cast', [short], [name], to=TensorProto.FLOAT)]

def store_in_8_bits(array, name):
    "Whole numbers from -127 to 127, a scale an output channel, and the nodes that multiply them."
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper
    scale = np.abs(array).max(axis=tuple(range(1, array.ndim)), keepdims=True)/127
    scale = np.where(scale == 0, 1, scale).astype(np.float32)
    short, wide, factor = f'{name}.8', f'{name}.wide', f'{name}.scale'
    tensors = [numpy_helper.from_array(np.rint(array/scale).astype(np.int8), short),
               numpy_helper.from_array(scale, factor)]
    nodes = [helper.make_node('Cast', [short], [wide], to=TensorProto.FLOAT),
             helper.make_node('Mul', [wide, factor], [name])]
    return tensors, nodes

def stored(program, store):
    "A copy of an ONNX program whose large arrays are kept by `store`; it computes in 32 bits."
    from onnx import TensorProto, numpy_helper
    program = copy.deepcopy(program)
    graph, tensors, nodes = program.graph, [], []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or array.size < SMALL:
            tensors.append(tensor)
            continue
        own_tensors, own_nodes = store(array, tensor.name)
        tensors += own_tensors
        nodes += own_nodes
    nodes += graph.node
    for field, content in ((graph.initializer, tensors), (graph.node, nodes)):
        del field[:]
        field.extend(content)
    del graph.value_info[:]
    return program

def without_notes(program):
    "The program without its exporter's notes: names of modules, lines of code with their paths."
    graph = program.graph
    for thing in (*graph.node, *graph.initializer, *graph.input, *graph.output, graph):
        thing.ClearField('doc_string')
        if hasattr(thing, 'metadata_props'):
            del thing.metadata_props[:]
    return program

def write_network(name, out):
    "Export weights/`name` in both precisions; what the page must know of the network."
    import onnx
    from yolov3_nb.export import export_onnx
    from yolov3_nb.model import YOLOv3
    model = YOLOv3.from_pretrained(ROOT/'weights'/name)
    with tempfile.TemporaryDirectory() as tmp:
        export_onnx(model, Path(tmp)/'model.onnx', decode=False)
        program = without_notes(onnx.load(Path(tmp)/'model.onnx'))
    files = {}
    for bits, store in ((16, store_in_16_bits), (8, store_in_8_bits)):
        data = stored(program, store).SerializeToString()
        (out/f'{name}-{bits}.onnx').write_bytes(data)
        files[str(bits)] = {'file': f'{name}-{bits}.onnx', 'bytes': len(data)}
    run = json.loads((ROOT/'results'/f'{NETWORKS[name]}.json').read_text(encoding='utf-8'))
    measured = {'test': run['data']['test'], 'images': run['data']['n_train'],
                'map50': run['metrics']['map50']}
    return {'size': model.image_size, 'anchors': model.anchors.tolist(),
            'activation': model.class_activation, 'classes': model.class_names,
            'files': files, 'measured': measured}


def write_photograph(out):
    "The photograph in the public domain that comes with matplotlib, for the other network."
    import matplotlib
    shutil.copy(Path(matplotlib.get_data_path())/'sample_data'/'grace_hopper.jpg', out)
    return {'file': 'grace_hopper.jpg', 'test': False, 'boxes': [], 'labels': [],
            'difficult': [], 'photograph': 'a photograph: Grace Hopper'}

def write_examples(out, n):
    "Draw ToyVOC's first `n` test images and the course's own; their boxes, in the page's order."
    from yolov3_nb.data import read_annotation
    from yolov3_nb.toyvoc import course_scene, scene, write_image
    scenes = {'000001': course_scene()}
    for k in range(n):
        scenes[f'{2001 + k:06d}'] = scene(random.Random(f'42-test-{k}'))
    examples = []
    with tempfile.TemporaryDirectory() as tmp:
        voc = Path(tmp)/'VOC2007'
        for folder in ('JPEGImages', 'Annotations'):
            (voc/folder).mkdir(parents=True)
        for image_id, (img, notes) in scenes.items():
            write_image(tmp, image_id, img, notes)
            target = read_annotation(voc/'Annotations'/f'{image_id}.xml')
            shutil.copy(voc/'JPEGImages'/f'{image_id}.jpg', out)
            known = {k: target[k].tolist() for k in ('boxes', 'labels', 'difficult')}
            examples.append({'file': f'{image_id}.jpg', 'test': image_id != '000001', **known})
    examples.insert(1, write_photograph(out))
    return sorted(examples, key=lambda e: e['file'] != FIRST)


def inputs(examples):
    "A digest of what the build is made from: where it is the last one's, nothing is to be done."
    digest = hashlib.sha256(str(examples).encode())
    files = [Path(__file__)]
    files += [ROOT/'yolov3_nb'/f'{name}.py' for name in ('data', 'export', 'model', 'toyvoc')]
    for name, run in NETWORKS.items():
        files += [*sorted((ROOT/'weights'/name).iterdir()), ROOT/'results'/f'{run}.json']
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()

def made(out, digest):
    "What the last build wrote, where it was whole and made from the same; else None."
    try:
        site = json.loads((out/'site.json').read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return site if site.get('runtime') and site.get('inputs') == digest else None

def make(out=OUT, examples=24):
    "Write everything into `out`, unless it is there; the content of its `site.json`."
    from yolov3_nb.data import CLASS_COLORS
    digest = inputs(examples)
    if site := made(out, digest):
        return site
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    site = {'inputs': digest, 'colors': list(CLASS_COLORS), 'runtime': None, 'missing': None}
    try:
        site['runtime'] = write_runtime(out)
    except NoRuntime as e:
        site['missing'] = str(e)
    site['examples'] = write_examples(out, examples)
    site['networks'] = {name: write_network(name, out) for name in NETWORKS}
    (out/'site.json').write_text(json.dumps(site), encoding='utf-8')  # last: all else is there
    return site

def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, default=OUT, help='the folder to write')
    p.add_argument('--examples', type=int, default=24,
                   help="how many of ToyVOC's test images come along")
    a = p.parse_args()
    site = make(a.out, a.examples)
    if site['missing']:
        print(f"The page cannot run: {site['missing']}")
    files = list(a.out.iterdir())
    print(f'{len(files)} files, {sum(f.stat().st_size for f in files)/1e6:.1f} MB in {a.out}')

if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    main()
