"""`yolov3_data download` against a server of our own that drops the line, lies, moves, or is not
there."""
import contextlib
import hashlib
import http.server
import io
import os
import shutil
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
import pytest
from yolov3_nb import cli, download
from yolov3_nb.download import download_voc, unpack_voc
from yolov3_nb.data import InputError, VOCDataset

XML = (
    '<annotation><filename>{0}.jpg</filename><size><width>8</width><height>6</height><depth>3</depth></size><object><name>dog</name>'
       '<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object></annotation>')

def tar_of(files):
    "A tar as bytes: a name and its content, or a TarInfo and None."
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as t:
        for name, content in files:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if content is not None:
                info.size = len(content)
            t.addfile(info, None if content is None else io.BytesIO(content))
    return out.getvalue()

def devkit(year, ids, splits):
    "The files of a tiny devkit; the pictures are padding, since nothing here looks into them."
    base = f'VOCdevkit/VOC{year}'
    files = [(f'{base}/ImageSets/Main/{s}.txt', '\n'.join(ids).encode()) for s in splits]
    files += [(f'{base}/Annotations/{i}.xml', XML.format(i).encode()) for i in ids]
    return files + [(f'{base}/JPEGImages/{i}.jpg', os.urandom(30_000)) for i in ids]

TRAINVAL = 'train', 'val', 'trainval'
TARS = {'a.tar': tar_of(devkit('2007', ['1', '2'], TRAINVAL)),
        'b.tar': tar_of(devkit('2007', ['3'], ['test'])),
        'c.tar': tar_of(devkit('2012', ['4'], TRAINVAL))}

def entry(name, splits, content=None):
    content = TARS[name] if content is None else content
    return name, hashlib.md5(content).hexdigest(), len(content), splits

ARCHIVES = {'2007': (entry('a.tar', TRAINVAL), entry('b.tar', ('test',))),
            '2012': (entry('c.tar', TRAINVAL),)}

class Server(http.server.ThreadingHTTPServer):
    """Hands out `files`; `misbehave(handler, content, start)` may answer instead, and returns True
    when it has."""
    def __init__(self, misbehave=None):
        self.files, self.misbehave, self.asked = dict(TARS), misbehave, []
        super().__init__(('127.0.0.1', 0), Handler)
    url = property(lambda self: f'http://127.0.0.1:{self.server_port}')
    def handle_error(self, request, client_address):
        pass  # a line that we have cut ourselves

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass
    def do_GET(self):
        name, wanted = self.path.split('/')[-1], self.headers.get('Range')
        start = int(wanted.split('=')[1].rstrip('-')) if wanted else 0
        self.server.asked.append((self.path, start))
        content = self.server.files.get(name)
        if self.server.misbehave and self.server.misbehave(self, content, start):
            return
        if content is None:
            return self.send_error(404)
        if start >= len(content) > 0:
            return self.send_error(416)
        self.give(content, start)
    def give(self, content, start=0, length=None, upto=None):
        self.send_response(206 if start else 200)
        self.send_header('Content-Length', str(len(content) - start if length is None else length))
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        self.end_headers()
        self.wfile.write(content[start:upto])
        if upto:
            self.connection.close()
        return True

@contextlib.contextmanager
def serving(misbehave=None):
    with Server(misbehave) as server:
        threading.Thread(target=server.serve_forever, args=(.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()

def get(root, *servers, years=('2007',), archives=ARCHIVES):
    mirrors = [s if isinstance(s, str) else s.url for s in servers]
    return download_voc(root, years, mirrors, progress=False, archives=archives, patience=.001)

def left(root):
    return sorted(p.relative_to(root).as_posix() for p in root.rglob('*') if p.is_file()
                  and p.name != '.lock')

def is_whole(root, year='2007'):
    n = {s: len(VOCDataset(root, [(year, s)]))
         for s in (('trainval', 'test') if year == '2007' else ('trainval',))}
    assert not (root/'.download').exists()
    return n == ({'trainval': 2, 'test': 1} if year == '2007' else {'trainval': 1})

def test_both_years_and_a_second_call_does_nothing(tmp_path):
    with serving() as server:
        assert get(tmp_path/'voc', server.url + '/{year}', years=('2007', '2012')) == tmp_path/'voc'
        assert [path for path, _ in server.asked] == ['/2007/a.tar', '/2007/b.tar', '/2012/c.tar']
        before = {p: p.stat().st_mtime_ns for p in (tmp_path/'voc').rglob('*')}
        get(tmp_path/'voc', server, years=('2007', '2012'))
        assert len(server.asked) == 3
        assert before == {p: p.stat().st_mtime_ns for p in (tmp_path/'voc').rglob('*')}
    assert is_whole(tmp_path/'voc', '2007') and is_whole(tmp_path/'voc', '2012')

def test_a_line_that_drops_half_way_goes_on_from_there(tmp_path):
    def drop(handler, content, start):
        if not start:
            return handler.give(content, upto=len(content) // 2)
    with serving(drop) as server:
        get(tmp_path, server)
        half = len(TARS['a.tar']) // 2
        assert server.asked[:2] == [('/a.tar', 0), ('/a.tar', half)]
    assert is_whole(tmp_path)

def test_a_new_call_goes_on_where_the_last_one_stopped(tmp_path):
    def drop(handler, content, start):
        if start < 10_000:
            return handler.give(content, start, upto=start + 10_000)
        handler.connection.close()
        return True
    with serving(drop) as server, pytest.raises(InputError, match='a.tar could not be fetched'):
        get(tmp_path, server)
    assert left(tmp_path) == ['.download/a.tar']
    assert (tmp_path/'.download'/'a.tar').stat().st_size == 10_000
    with serving() as server:
        get(tmp_path, server)
        assert server.asked[0] == ('/a.tar', 10_000)
    assert is_whole(tmp_path)

def test_a_server_that_ignores_the_range_begins_again(tmp_path):
    (tmp_path/'.download').mkdir()
    (tmp_path/'.download'/'a.tar').write_bytes(TARS['a.tar'][:5000])
    with serving(lambda handler, content, start: handler.give(content) if start
                 else None) as server:
        get(tmp_path, server)
    assert is_whole(tmp_path)

def test_a_beginning_of_something_else_is_found_out_and_fetched_anew(tmp_path):
    (tmp_path/'.download').mkdir()
    (tmp_path/'.download'/'a.tar').write_bytes(b'x' * 5000)
    with serving() as server:
        get(tmp_path, server)
        assert server.asked[:2] == [('/a.tar', 5000), ('/a.tar', 0)]
    assert is_whole(tmp_path)

def test_a_server_that_always_drops_is_left_for_the_next(tmp_path):
    def drop(handler, content, start):
        return handler.give(content, upto=100)  # never more than the first 100 bytes
    with serving(drop) as bad, serving() as good:
        get(tmp_path, bad, good)
        assert 3 <= len(bad.asked) < 20
    assert is_whole(tmp_path)

def wrong(size):
    return lambda handler, content, start: handler.give(b'<html>' + b'x' * (size(content) - 6))

@pytest.mark.parametrize('size, says', [
    (len, 'wrong md5'), (lambda content: 600, 'a file of 600 bytes'),
    (lambda content: len(content) + 1, 'and not of')])
def test_a_wrong_file_is_not_unpacked(tmp_path, size, says):
    with serving(wrong(size)) as server:
        with pytest.raises(InputError, match=says):
            get(tmp_path, server)
        # refused before a byte, or thrown away after the last
        assert len(server.asked) == 1 and left(tmp_path) == []
        with serving() as good:
            get(tmp_path, server, good)
    assert is_whole(tmp_path)

def test_more_than_was_promised_is_not_written(tmp_path):
    def endless(handler, content, start):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(200):
                handler.wfile.write(b'x' * 2**16)
        return True
    with serving(endless) as server, pytest.raises(InputError, match='more than the'):
        get(tmp_path, server)
    assert all((tmp_path/f).stat().st_size <= len(TARS['a.tar']) + 1 for f in left(tmp_path))

def test_a_redirect_is_followed(tmp_path):
    with serving() as good:
        def move(handler, content, start):
            handler.send_response(301)
            handler.send_header('Location', good.url + handler.path)
            handler.end_headers()
            return True
        with serving(move) as server:
            get(tmp_path, server)
    assert is_whole(tmp_path)

@pytest.mark.parametrize('code, asked', [(503, 3), (404, 1)])
def test_a_server_that_refuses(tmp_path, code, asked):
    with serving(lambda handler, content, start: handler.send_error(code)
                 or True) as server, serving() as good:
        with pytest.raises(InputError, match='127.0.0.1:[0-9]+: ') as e:
            get(tmp_path, server)
        assert len(server.asked) == asked
        assert '--mirror' in str(e.value)
        assert '\n' not in str(e.value)
        get(tmp_path, server, good)
    assert is_whole(tmp_path)

def test_a_mirror_that_holds_less_than_we_have_costs_nothing(tmp_path):
    (tmp_path/'.download').mkdir()
    (tmp_path/'.download'/'a.tar').write_bytes(TARS['a.tar'][:5000])
    with serving() as short, serving() as good:
        short.files['a.tar'] = b'x' * 600
        get(tmp_path, short, good)
        # and b.tar from the first
        assert len(short.asked) == 2 and good.asked[0] == ('/a.tar', 5000)
    assert is_whole(tmp_path)

def test_a_server_that_speaks_no_http(tmp_path):
    def babble(handler, content, start):
        handler.wfile.write(b'hello\r\n')
        handler.close_connection = True
        return True
    with serving(babble) as server, serving() as good:
        with pytest.raises(InputError, match='a.tar could not be fetched .*hello') as e:
            get(tmp_path, server)
        assert len(server.asked) == 3 and '\n' not in str(e.value)
        get(tmp_path, server, good)
    assert is_whole(tmp_path)

def test_no_server_at_all(tmp_path):
    with serving() as server:
        url = server.url
    with pytest.raises(InputError, match='a.tar could not be fetched') as e:
        get(tmp_path, url, 'nonsense', 'gopher://127.0.0.1')
    assert 'refused' in str(e.value) and 'nonsense' in str(e.value) and '\n' not in str(e.value)
    assert left(tmp_path) == []

def test_a_folder_of_this_machine_is_a_mirror(tmp_path):
    for name, content in TARS.items():
        (tmp_path/name).write_bytes(content)
    get(tmp_path/'voc', tmp_path.as_uri())
    assert is_whole(tmp_path/'voc')

@pytest.mark.parametrize('times, enough', [(1, False), (2, False), (2.1, True)])
def test_too_little_disk(tmp_path, monkeypatch, times, enough):
    # the archives and what is in them lie there together for a while
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage',
                        lambda path: usage._replace(
                            free=int(times * (len(TARS['a.tar']) + len(TARS['b.tar'])))))
    with serving() as server:
        if enough:
            get(tmp_path/'new', server)
        else:
            with pytest.raises(InputError, match='GB are free'):
                get(tmp_path/'new', server)
            assert not server.asked
    assert (tmp_path/'new').exists() == enough

def test_a_disk_that_fills_up(tmp_path):
    full = '/dev/full'
    if not os.path.exists(full):
        pytest.skip('needs /dev/full')
    (tmp_path/'.download').mkdir()
    (tmp_path/'.download'/'a.tar').symlink_to(full)
    with serving() as server, pytest.raises(InputError, match='cannot be written .No space left'):
        get(tmp_path, server)

def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path/'file').write_text('')
    with serving() as server, pytest.raises(InputError, match='cannot be written'):
        get(tmp_path/'file'/'voc', server)

def test_somebodys_devkit_is_not_written_over(tmp_path):
    mine = tmp_path/'VOCdevkit'/'VOC2007'/'Annotations'/'mine.xml'
    mine.parent.mkdir(parents=True)
    mine.write_text('mine')
    with serving() as server:
        with pytest.raises(InputError, match='is there and lacks'):
            get(tmp_path, server)
        assert not server.asked and left(tmp_path) == ['VOCdevkit/VOC2007/Annotations/mine.xml']

def test_an_archive_that_holds_no_whole_devkit(tmp_path):
    files = devkit('2012', ['4', '5'], TRAINVAL)
    content = tar_of([f for f in files if '5.jpg' not in f[0]])
    archives = {'2012': (entry('c.tar', TRAINVAL, content),)}
    with serving() as server:
        server.files['c.tar'] = content
        with pytest.raises(InputError, match='JPEGImages/5.jpg'):
            get(tmp_path, server, years=('2012',), archives=archives)
    assert not (tmp_path/'VOCdevkit').exists()

def test_an_interrupted_unpacking_is_done_again(tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt
    with serving() as server:
        with monkeypatch.context() as m:
            m.setattr(download, 'unpack_voc', stop)
            with pytest.raises(KeyboardInterrupt):
                get(tmp_path, server)
        (tmp_path/'.download'/'VOC2007'/'VOCdevkit'/'VOC2007').mkdir(parents=True)
        (tmp_path/'.download'/'VOC2007'/'VOCdevkit'/'VOC2007'/'half').write_text('')
        assert not (tmp_path/'VOCdevkit').exists()
        get(tmp_path, server)
        assert len(server.asked) == 2  # the archives were there
    assert is_whole(tmp_path) and not list(tmp_path.rglob('half'))

def test_archives_that_a_killed_call_left_beside_a_whole_devkit_are_removed(tmp_path):
    with serving() as server:
        get(tmp_path, server)
        (tmp_path/'.download'/'VOC2007').mkdir(parents=True)
        (tmp_path/'.download'/'a.tar').write_bytes(TARS['a.tar'])
        (tmp_path/'.download'/'c.tar').write_bytes(b'half of another year')
        get(tmp_path, server)
        assert left(tmp_path/'.download') == ['c.tar'] and len(server.asked) == 2
        (tmp_path/'.download'/'c.tar').unlink()
        (tmp_path/'.download'/'a.tar').write_bytes(TARS['a.tar'])
        get(tmp_path, server)
    assert is_whole(tmp_path)


def test_two_at_once(tmp_path):
    with serving() as server:
        with ThreadPoolExecutor(3) as pool:
            done = list(pool.map(lambda _: get(tmp_path, server), range(3)))
        assert done == [tmp_path] * 3 and len(server.asked) == 2
    assert is_whole(tmp_path)

def member(name, **attributes):
    info = tarfile.TarInfo(name)
    for k, v in attributes.items():
        setattr(info, k, v)
    return info

EVIL = {
    'climbs': [('VOCdevkit/../../evil', b'x')], 'absolute': [('/tmp/evil-yolov3', b'x')],
    'elsewhere': [('other/file', b'x')],
    'backslash': [('VOCdevkit/..\\..\\evil', b'x')], 'dot': [('VOCdevkit/./x', b'x')],
    'symlink': [(member('VOCdevkit/l', type=tarfile.SYMTYPE, linkname='../..'), None),
                ('VOCdevkit/l/evil', b'x')],
    'hard link': [(member('VOCdevkit/l', type=tarfile.LNKTYPE, linkname='../../evil'), None)],
    'device': [(member('VOCdevkit/null', type=tarfile.CHRTYPE, devmajor=1, devminor=3), None)],
    'pipe': [(member('VOCdevkit/p', type=tarfile.FIFOTYPE), None)]}

@pytest.mark.parametrize('name', EVIL)
def test_a_tar_that_leaves_its_folder(tmp_path, name):
    (tmp_path/'in').mkdir()
    (tmp_path/'evil.tar').write_bytes(tar_of([('VOCdevkit/good', b'x')] + EVIL[name]))
    with pytest.raises(InputError, match='no plain file below VOCdevkit'):
        unpack_voc(tmp_path/'evil.tar', tmp_path/'in', progress=False)
    assert left(tmp_path) == ['evil.tar']  # not even the good one

def test_a_tar_that_claims_more_than_it_holds(tmp_path):
    header = bytearray(member('VOCdevkit/sparse',
                              type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b'%011o\0' % 2**33  # a file of 8 GB that is one hole
    header[148:156] = b'%06o\0 ' % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    (tmp_path/'bomb.tar').write_bytes(header + bytes(10240 - 512))
    with tarfile.open(tmp_path/'bomb.tar') as t:
        assert [m.size for m in t] == [2**33]
    with pytest.raises(InputError, match='no plain file'):
        unpack_voc(tmp_path/'bomb.tar', tmp_path/'in', progress=False)
    assert left(tmp_path) == ['bomb.tar']

@pytest.mark.parametrize('content', [b'', b'<html>', TARS['a.tar'][:20_000]],
                         ids=['empty', 'html', 'cut'])
def test_what_is_no_tar(tmp_path, content):
    (tmp_path/'no.tar').write_bytes(content)
    with pytest.raises(InputError, match='no whole tar'):
        unpack_voc(tmp_path/'no.tar', tmp_path/'in', progress=False)

def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cli, 'VOC_MIRRORS', ())
    monkeypatch.setattr(cli, 'download_voc',
                        partial(download_voc, archives=ARCHIVES, progress=False, patience=.001))
    def run(*args):
        try:
            cli.data(['download', '--out', str(tmp_path/'voc'), *args])
        except SystemExit as e:
            return e.code, capsys.readouterr().err.strip()
        return 0, capsys.readouterr().out.strip()
    for args, says in (('--years', '1999'),
                       '--years 1999 is not known'), (('--mirror', 'http://127.0.0.1:9'),
                                                      'could not be fetched'):
        code, said = run(*args)
        assert code == 2 and says in said and '\n' not in said and not (tmp_path/'voc').exists()
    for name, content in TARS.items():
        (tmp_path/name).write_bytes(content)
    assert run('--mirror', str(tmp_path)) == run() == (0,
                                                       f'PASCAL VOC 2007 and 2012 is in '
                                                       f'{tmp_path}/voc. '
                                                          f'Train on it with: yolov3_train '
                                                       f'--preset voc --data {tmp_path}/voc')
    def stop(*args):
        raise KeyboardInterrupt
    monkeypatch.setattr(cli, 'download_voc', stop)
    code, said = run()
    assert code == 130 and 'What arrived is kept' in said
