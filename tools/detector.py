"""Make what the page "The detector" loads: `python tools/detector.py [--out DIR] [--examples 24]`.

Writes nbs/detector/build/, which git ignores: the networks of weights/ as ONNX, their kernels stored in 16 and in 8 bits; ONNX Runtime
Web from its npm package; some of ToyVOC's test images; and `site.json`, which describes them. `tools/site.py` calls it; with Quarto run
it before `nbdev_docs`. Where npm or its registry is missing, the page is built all the same and says that it cannot run."""
import argparse, base64, gzip, hashlib, json, random, shutil, subprocess, sys, tarfile, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT/'nbs'/'detector'/'build'
RUNTIME = 'onnxruntime-web@1.30.0'
SHA512 = 'q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=='
SCRIPT, BINARY = 'ort.wasm.bundle.min.mjs', 'ort-wasm-simd-threaded.wasm'
NETWORKS = {'toy': 'toy', 'voc': 'voc07'}  # a folder of weights/, and the file of results/ that measured it
FIRST = '002018.jpg'  # the example that the page opens with; the course's own image comes next
SMALL = 1024  # an array with fewer numbers than this stays in 32 bits


class NoRuntime(Exception):
    "Why ONNX Runtime Web could not be had, in one sentence for the page."


def fetch_runtime(folder):
    "Download the npm package and check it; its path."
    npm = shutil.which('npm')
    if not npm: raise NoRuntime('npm was not installed where this site was built.')
    command = [npm, 'pack', RUNTIME, '--prefer-offline', '--silent', '--pack-destination', str(folder)]
    try: done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired: raise NoRuntime(f'npm did not fetch {RUNTIME} within five minutes.') from None
    package = next(Path(folder).glob('*.tgz'), None)
    if done.returncode or not package: raise NoRuntime(f'npm could not fetch {RUNTIME} when this site was built.')
    if base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() != SHA512:
        raise NoRuntime(f'What npm fetched as {RUNTIME} is not that package.')
    return package

def write_runtime(out):
    "Put the runtime's script and its WebAssembly, gzipped, into `out`; what the page must know of them."
    with tempfile.TemporaryDirectory() as tmp, tarfile.open(fetch_runtime(tmp)) as package:
        read = lambda name: package.extractfile(f'package/dist/{name}').read()
        (out/SCRIPT).write_bytes(read(SCRIPT))
        binary = gzip.compress(read(BINARY), 9, mtime=0)
    name = f'{BINARY}.bin'  # no server is to unpack it by its ending: the page does so everywhere alike
    (out/name).write_bytes(binary)
    return dict(package=RUNTIME, script=SCRIPT, binary=name, bytes=len(binary) + (out/SCRIPT).stat().st_size)


def store_in_16_bits(array, name):
    "A half-precision initialiser, and the node that makes it 32 bits wide again."
    from onnx import TensorProto, helper, numpy_helper
    import numpy as np
    short = f'{name}.16'
    return [numpy_helper.from_array(array.astype(np.float16), short)], [helper.make_node('Cast', [short], [name], to=TensorProto.FLOAT)]

def store_in_8_bits(array, name):
    "Whole numbers from -127 to 127 with one scale an output channel, and the nodes that multiply them out."
    from onnx import TensorProto, helper, numpy_helper
    import numpy as np
    scale = np.abs(array).max(axis=tuple(range(1, array.ndim)), keepdims=True)/127
    scale = np.where(scale == 0, 1, scale).astype(np.float32)
    whole = np.rint(array/scale).astype(np.int8)
    short, wide, factor = f'{name}.8', f'{name}.wide', f'{name}.scale'
    tensors = [numpy_helper.from_array(whole, short), numpy_helper.from_array(scale, factor)]
    nodes = [helper.make_node('Cast', [short], [wide], to=TensorProto.FLOAT), helper.make_node('Mul', [wide, factor], [name])]
    return tensors, nodes

def stored(program, store):
    "A copy of an ONNX program whose large arrays are kept as `store` says; it still computes in 32 bits."
    import copy
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
    "The same program without what its exporter wrote beside the numbers: names of modules, and lines of code with their paths."
    for thing in (*program.graph.node, *program.graph.initializer, *program.graph.input, *program.graph.output, program.graph):
        thing.ClearField('doc_string')
        if hasattr(thing, 'metadata_props'): del thing.metadata_props[:]
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
        files[bits] = dict(file=f'{name}-{bits}.onnx', bytes=len(data))
        (out/files[bits]['file']).write_bytes(data)
    run = json.loads((ROOT/'results'/f'{NETWORKS[name]}.json').read_text(encoding='utf-8'))
    measured = dict(test=run['data']['test'], images=run['data']['n_train'], map50=run['metrics']['map50'])
    return dict(size=model.image_size, anchors=model.anchors.tolist(), activation=model.class_activation,
                classes=model.class_names, files=files, measured=measured)

def write_photograph(out):
    "The photograph in the public domain that comes with matplotlib, for the network that knows photographs."
    import matplotlib
    shutil.copy(Path(matplotlib.get_data_path())/'sample_data'/'grace_hopper.jpg', out)
    return dict(file='grace_hopper.jpg', test=False, photograph='a photograph: Grace Hopper', boxes=[], labels=[], difficult=[])

def write_examples(out, n):
    "Draw ToyVOC's first `n` test images, and the course's own; their known boxes, in the order of the page."
    from yolov3_nb.data import read_annotation
    from yolov3_nb.toyvoc import course_scene, scene, write_picture
    scenes = {'000001': course_scene()} | {f'{2001 + k:06d}': scene(random.Random(f'42-test-{k}')) for k in range(n)}
    examples = []
    with tempfile.TemporaryDirectory() as tmp:
        voc = Path(tmp)/'VOC2007'
        for folder in ('JPEGImages', 'Annotations'): (voc/folder).mkdir(parents=True)
        for image_id, (img, notes) in scenes.items():
            write_picture(tmp, image_id, img, notes)
            target = read_annotation(voc/'Annotations'/f'{image_id}.xml')
            shutil.copy(voc/'JPEGImages'/f'{image_id}.jpg', out)
            known = {k: target[k].tolist() for k in ('boxes', 'labels', 'difficult')}
            examples.append(dict(file=f'{image_id}.jpg', test=image_id != '000001', **known))
    examples.insert(1, write_photograph(out))
    return sorted(examples, key=lambda e: e['file'] != FIRST)

def inputs(examples):
    "A digest of all that the build is made from: where it is that of the last build, there is nothing to do."
    digest = hashlib.sha256(str(examples).encode())
    code = [ROOT/'yolov3_nb'/f'{name}.py' for name in ('data', 'export', 'model', 'toyvoc')]
    for name, run in NETWORKS.items():
        code += [*sorted((ROOT/'weights'/name).iterdir()), ROOT/'results'/f'{run}.json']
    for file in (Path(__file__), *code): digest.update(file.read_bytes())
    return digest.hexdigest()

def made(out, digest):
    "What the last build wrote, where it was whole and made from the same; else None."
    try: site = json.loads((out/'site.json').read_text(encoding='utf-8'))
    except (OSError, ValueError): return None
    return site if site.get('runtime') and site.get('inputs') == digest else None

def make(out=OUT, examples=24):
    "Write everything into `out`, unless it is there; the content of its `site.json`."
    from yolov3_nb.data import CLASS_COLORS
    digest = inputs(examples)
    if site := made(out, digest): return site
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    runtime, missing = None, None
    try: runtime = write_runtime(out)
    except NoRuntime as e: missing = str(e)
    site = dict(runtime=runtime, missing=missing, inputs=digest, colors=list(CLASS_COLORS), examples=write_examples(out, examples),
                networks={name: write_network(name, out) for name in NETWORKS})
    (out/'site.json').write_text(json.dumps(site), encoding='utf-8')  # last: what it describes is there
    return site

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, default=OUT, help='the folder to write')
    p.add_argument('--examples', type=int, default=24, help="how many of ToyVOC's test images come along")
    a = p.parse_args()
    site = make(a.out, a.examples)
    if site['missing']: print(f"The page cannot run: {site['missing']}")
    total = sum(f.stat().st_size for f in a.out.iterdir())
    print(f'{len(list(a.out.iterdir()))} files, {total/1e6:.1f} MB in {a.out}')

if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    main()
