"""Let the search of the built site lead to what explains a term: `python tools/search.py`.

Reads and rewrites _docs/search.json, whichever program made it (tools/site.py calls this; after
nbdev_docs it is run by itself). First in the index stand the terms of the glossary, each with its
definition and the section of the chapter that explains it; then the sections of the chapters, of
the other pages, of the workshops; last the functions, by their names. Sections that hold only
questions or links are left out. Running it twice changes nothing."""
import html
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TERM = re.compile(r'<a id="(term-[^"]+)"[^>]*></a>\s*<strong>(.*?)</strong>(.*?)→\s*'
                  r'<a href="([^"#]+)"[^>]*>(.*?)</a>', re.S)
ENTRY = re.compile(r'>source</a></p>\s*(?:<section id="([^"]+)"[^>]*>\s*)?'
                   r'<h3(?:[^>]*? id="([^"]+)")?[^>]*>(.*?)</h3>', re.S)
LEFT_OUT = 'Further reading', 'Questionnaire'
SUMMARIES = 'In short', 'Exercises', 'In your own hands'
# where a term is explained though another section says it more often
EXPLAINED = {
    'anchor': 'anchors.html#the-shapes-of-things',
    'average precision (AP)': 'evaluation.html#one-number-from-a-curve',
    'bounding box': 'data.html#what-a-detector-is-asked',
    'calibration': 'errors.html#does-0.8-mean-eight-in-ten',
    'COCO AP': 'evaluation.html#coco-asks-more',
    'confusion matrix': 'errors.html#who-is-taken-for-whom',
    'encode': 'anchors.html#encoding-from-boxes-to-targets',
    'epoch': 'training.html#the-loop-by-hand',
    'error type (TIDE)': 'errors.html#six-kinds-of-mistakes',
    'heat map': 'gradcam.html#grad-cam-in-numbers-that-fit-on-a-napkin',
    'ignored cell': 'anchors.html#encoding-from-boxes-to-targets',
    'IoU': 'boxes.html#iou-how-much-of-two-boxes-is-one',
    'letterbox': 'augmentation.html#into-the-square',
    'loss': 'loss.html#the-original-form-term-by-term',
    'mAP': 'evaluation.html#one-number-from-a-curve',
    'one-cycle schedule': 'training.html#the-schedule',
    'precision–recall curve': 'evaluation.html#from-verdicts-to-a-curve',
    'reliability diagram': 'errors.html#does-0.8-mean-eight-in-ten',
}
# what people type for a term that the glossary calls otherwise
ALSO = {
    'augmentation': ['data augmentation'], 'EMA': ['exponential moving average'],
    'Grad-CAM': ['class activation map'], 'ignored cell': ['ignore mask'],
    'IoU': ['intersection over union'], 'mAP': ['mean average precision'],
    'NMS': ['non-maximum suppression'], 'ONNX': ['export ONNX'],
    'warm-up': ['warmup'], 'transfer': ['fine-tuning', 'transfer learning'],
}
CHAPTER = re.compile(r'(0[1-9]|1[0-4])b? · ')
NUMBERED = re.compile(r'\d\d[a-z]? · ')


def plain(text):
    "HTML as the text that it shows."
    return ' '.join(html.unescape(re.sub(r'<[^>]+>', '', text)).split())

def words(name):
    "What a term may be called: `average precision (AP)` is also `average precision`, and `AP`."
    inside = re.search(r'\((.+?)\)', name)
    outside = re.sub(r'\s*\(.+?\)', '', name)
    return [w for w in (outside, inside and inside[1]) if w]

def explaining(name, sections, everywhere):
    """The section that explains a term: the one that `EXPLAINED` names; or that of the glossary's
    chapter whose heading names it, or whose text does most."""
    if EXPLAINED.get(name) in everywhere:
        return everywhere[EXPLAINED[name]]
    names = [re.compile(rf'(?<!\w){re.escape(w)}(e?s)?(?!\w)', re.I) for w in words(name)]
    def weight(entry):
        heading = any(p.search(entry['section']) for p in names)
        times = sum(len(p.findall(entry['text'])) for p in names)
        rests = entry['section'] in SUMMARIES + LEFT_OUT
        return heading and not rests, (not rests)*times/(200 + len(entry['text']))**.5
    return max(sections, key=weight)

def term_entries(glossary, entries):
    "An entry of the index for each term of the glossary's page."
    found = []
    for anchor, name, said, page, _ in TERM.findall(glossary):
        name, page = plain(name), page.removeprefix('./')
        sections = [e for e in entries if e['href'].partition('#')[0] == page]
        if not sections:
            continue
        best = explaining(name, sections, {e['href']: e for e in entries})
        where = f"{best['title']}: {best['section']}" if best['section'] else best['title']
        for i, title in enumerate([name, *ALSO.get(name, [])]):
            found.append(dict(objectID=f'glossary.html#{anchor}-{i}', href=best['href'],
                              title=title, section=where, text=f'{title}: {plain(said)}'))
    return found

def api_entries(page, text, title):
    "An entry of the index for each function and class that a page documents."
    return [dict(objectID=f'{page}#api-{a or b}', href=f'{page}#{a or b}', title=plain(name),
                 section=f'{title}: reference', text='')
            for a, b, name in ENTRY.findall(text) if a or b]

def rank(entry):
    "Chapters, then pages beside the course, then workshops; summaries after what they sum up."
    numbered = NUMBERED.match(entry['title'])
    kind = 0 if CHAPTER.match(entry['title']) else 2 if numbered else 1
    return kind, entry['section'] in SUMMARIES

def rewrite(site):
    "Rewrite the index of the site in this folder."
    file = Path(site)/'search.json'
    entries = json.loads(file.read_text(encoding='utf-8'))
    made = re.compile(r'#term-|#api-')
    entries = [e for e in entries if not made.search(e['objectID'])]
    kept = [e for e in entries if e['section'] not in LEFT_OUT
            and not re.match(r'glossary\.html#.$', e['href'])]
    kept.sort(key=rank)
    titles = {e['href'].partition('#')[0]: e['title'] for e in entries}
    glossary = Path(site)/'glossary.html'
    terms = glossary.read_text(encoding='utf-8') if glossary.is_file() else ''
    api = [entry for page, title in sorted(titles.items()) if (Path(site)/page).is_file()
           for entry in api_entries(page, (Path(site)/page).read_text(encoding='utf-8'), title)]
    index = term_entries(terms, kept) + kept + api
    file.write_text(json.dumps(index, ensure_ascii=False), encoding='utf-8')
    return index

if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    from nbdev.config import get_config
    index = rewrite(get_config(path=ROOT).doc_path)
    print(f'{len(index)} entries in search.json')
