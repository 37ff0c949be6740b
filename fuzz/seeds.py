#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets from testdata, in fuzz/seeds/TARGET; called by scripts/fuzz."""
import base64, bz2, gzip, hashlib, io, json, lzma, os, pathlib, shutil, subprocess, tarfile, tempfile

FUZZ = pathlib.Path(__file__).resolve().parent
DATA = FUZZ.parent / 'testdata'
MADE = set()


def put(target, content):
    content = content if isinstance(content, bytes) else content.encode()
    seed = FUZZ / 'seeds' / target / hashlib.sha256(content).hexdigest()[:16]
    MADE.add(seed)
    if not seed.exists():
        seed.parent.mkdir(parents=True, exist_ok=True)
        # Another run may be reading the seeds.
        part = seed.with_name(f'.{seed.name}.{os.getpid()}')
        part.write_bytes(content)
        part.rename(seed)


def dockerfiles():
    yield from (p.read_bytes() for p in sorted(DATA.glob('conformance/cases/*/context/Dockerfile')))
    yield from (p.read_bytes() for p in sorted(DATA.glob('parser/*')) if p.is_file())
    yield from (p.read_bytes() for p in sorted(DATA.glob('parser/*/Dockerfile')))


def words():
    for text in dockerfiles():
        for word in text.decode(errors='replace').split():
            if set(word) & set('$\'"\\'):
                yield word
    yield from ('${A#a*}', '${A##*/}', '${A%.*}', '${A%%.*}', '${A/b/c}', '${A//[bc]/}', '${N:-${A:+$B}}',
                '${E-x}', '${E:?no $A}', '"$A"\'$A\'\\$A', '${A/#a/b}', '${B//x/$B}', '$', '${', '${A:', '"', "'")


IGNORES = ['*\n!keep', '**/*.md\n!README.md', 'a/b\n!a/b/c\na/b/c/d', '# comment\n\n/a/../b/\n! c ', 'a/**/z\n!a/*/y/z',
           '[a-c]?\\*\n[^x-z]', '**\n!**/x', 'x/**\n!x/y', '**a\n!b**', 'a^b*', '*/*/..', '!\n', '[']
PATHS = ['keep', 'a/b/c/d', 'docs/README.md', 'b', 'a/m/y/z', 'x/y/z', 'a*', 'a b/ü', 'x']


def tars():
    def one(fill, **more):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode='w', **more) as tar:
            fill(tar)
        return out.getvalue()

    def entry(tar, name, kind=tarfile.REGTYPE, data=b'', **fields):
        info = tarfile.TarInfo(name)
        info.type, info.size = kind, len(data)
        for key, value in fields.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(data))

    def kinds(tar):
        entry(tar, 'dir/', tarfile.DIRTYPE, mode=0o1777)
        entry(tar, 'dir/file', data=b'content\n' * 100, mode=0o4755, uid=1000, mtime=1700000000)
        entry(tar, 'dir/link', tarfile.LNKTYPE, linkname='dir/file')
        entry(tar, 'sym', tarfile.SYMTYPE, linkname='../dir/file')
        entry(tar, 'null', tarfile.CHRTYPE, devmajor=1, devminor=3)
        entry(tar, 'pipe', tarfile.FIFOTYPE)
        entry(tar, 'dir/.wh.gone')
        entry(tar, 'dir/.wh..wh..opq')

    def pax(tar):
        entry(tar, 'n' * 200, data=b'x', pax_headers={'mtime': '1.5', 'SCHILY.xattr.user.a': 'b', 'uid': '3000000'})
        entry(tar, 's', pax_headers={'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': 't',
                                     'GNU.sparse.realsize': '4096'}, data=b'1\n512\n3\n'.ljust(512, b'\0') + b'abc')
        entry(tar, 'p', pax_headers={'path': 'ü/p', 'linkpath': 'q', 'size': '0'})

    def long(tar):
        entry(tar, 'd/' * 60 + 'f', data=b'y' * 600)
        entry(tar, 'l', tarfile.SYMTYPE, linkname='t' * 300)

    yield one(kinds, format=tarfile.USTAR_FORMAT)
    yield one(pax, format=tarfile.PAX_FORMAT, pax_headers={'comment': 'global', 'mtime': '7'})
    yield one(long, format=tarfile.GNU_FORMAT)
    yield one(lambda tar: None)


def packed(data):
    yield data
    yield gzip.compress(data, mtime=0)
    yield gzip.compress(data[:512], mtime=0) + gzip.compress(data[512:], mtime=0)
    yield bz2.compress(data)
    yield lzma.compress(data)
    if shutil.which('zstd'):
        yield subprocess.run(['zstd', '-q', '-c'], input=data, stdout=subprocess.PIPE, check=True).stdout


A = 'sha256:' + 'a' * 64
OCI, DOCKER = 'application/vnd.oci.image.', 'application/vnd.docker.'
LAYER = {'mediaType': OCI + 'layer.v1.tar+gzip', 'digest': A, 'size': 7, 'urls': ['https://x.example'], 'annotations': {'k': 'v'}}
CONFIG = {'mediaType': OCI + 'config.v1+json', 'digest': A, 'size': 2}
MANIFESTS = [
    {'schemaVersion': 2, 'mediaType': OCI + 'manifest.v1+json', 'config': CONFIG, 'layers': [LAYER]},
    {'schemaVersion': 2, 'mediaType': DOCKER + 'distribution.manifest.v2+json',
     'config': CONFIG | {'mediaType': DOCKER + 'container.image.v1+json'},
     'layers': [LAYER | {'mediaType': DOCKER + 'image.rootfs.diff.tar.gzip'}]},
    {'schemaVersion': 2, 'mediaType': OCI + 'index.v1+json', 'manifests': [
        CONFIG | {'mediaType': OCI + 'manifest.v1+json',
                  'platform': {'architecture': 'arm64', 'os': 'linux', 'variant': 'v8', 'os.version': '1', 'features': []}}]},
    {'schemaVersion': 1, 'name': 'x', 'fsLayers': []},
]
IMAGES = [
    {'architecture': 'amd64', 'os': 'linux', 'created': '2023-11-14T22:13:20Z', 'author': 'x', 'variant': 'v8',
     'config': {'Env': ['PATH=/bin', 'A='], 'Cmd': ['sh'], 'Entrypoint': None, 'User': '1:2', 'WorkingDir': '/w',
                'Labels': {'a': 'b'}, 'Volumes': {'/v': {}}, 'ExposedPorts': {'80/tcp': {}}, 'OnBuild': ['RUN x'],
                'StopSignal': 'TERM', 'Shell': ['sh'], 'Healthcheck': {'Test': ['NONE'], 'Interval': 1}, 'Other': 1},
     'rootfs': {'type': 'layers', 'diff_ids': [A]}, 'history': [{'created_by': 'x', 'empty_layer': True}], 'moby.x': [1]},
    {'config': None, 'rootfs': None, 'history': None},
]
REFERENCES = ['debian', 'debian:12', 'me/app', 'index.docker.io/me/x:y', 'localhost:5000/x:y', 'UPPER/x', '[::1]:5000/x',
              'r.example/a--b/c__d.e:1.2-3_4', 'r.example/x@' + A, 'r.example:5000/x/y:t@' + A]
GIT_URLS = ['https://u:p@h/f.git#a/b:c/../d', 'git@h:f.git#v1:x', 'ssh://git@[::1]:2222/~me/f#x', 'git://h/f%20g',
            'github.com/a/b.git#:dir', 'h/f#refs/heads/main#0123456789abcdef0123456789abcdef01234567',
            'https://h/f.git?tag=v1&subdir=/s&checksum=abc123&keep-git-dir=1&submodules=false&mtime=checkout',
            'http://h/f.git?branch=a%2Fb&fetch-by-commit=true#%72', 'git@h:/a/b\n../../c', 'https://h/a\n./../d/']
GIT_MODULES = ['[submodule "a/b"]\n\tpath = a/b\n\turl = ../c.git\n\tbranch = .\n',
               '\ufeff# c\n[core] x\n[Submodule "q\\"\\\\"]; d\n path="a b" c\n url=https://h/x\\\n/y\n update = none\n',
               '[submodule "../x"]\npath=-u\n', '[a.b "c"]d=e\n[submodule "x"]\nurl = --upload-pack=x\nupdate = !sh\n']


def ssh_string(content):
    return len(content).to_bytes(4, 'big') + content


def ssh_keys():
    """Private keys of every kind that ssh-keygen makes, in each of its forms; other ones at each run."""
    if not shutil.which('ssh-keygen'):
        return
    with tempfile.TemporaryDirectory() as folder:
        for kind in (['ed25519'], ['ecdsa', '-b', '256'], ['ecdsa', '-b', '384'], ['ecdsa', '-b', '521'], ['rsa', '-b', '2048']):
            for form in ([], ['-m', 'PEM'], ['-m', 'PKCS8']):
                file = pathlib.Path(folder) / '-'.join(kind + form)
                subprocess.run(['ssh-keygen', '-q', '-N', '', '-C', 'c', '-t', *kind, *form, '-f', file], check=True)
                yield file.read_bytes()


def ssh_requests():
    """What commands ask an agent: the list, a signature with the key of ssh_agent, and what is refused."""
    public = ssh_string(b'ssh-ed25519') + ssh_string(bytes.fromhex(
        'ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c'))
    yield bytes([11])
    for flags in (0, 2, 4):
        yield bytes([13]) + ssh_string(public) + ssh_string(b'message') + flags.to_bytes(4, 'big')
    yield bytes([13]) + ssh_string(public[:-1]) + ssh_string(b'') + bytes(4)
    yield from (bytes([kind]) + ssh_string(b'x') for kind in (9, 17, 18, 19, 22, 25, 27))


def main():
    for text in dockerfiles():
        for target in ('dockerfile', 'plan', 'checks'):
            put(target, text.replace(b'@BASE@', b'base'))
    for word in words():
        put('words', word)
    for patterns in IGNORES:
        for path in PATHS:
            for target in ('ignore', 'glob'):
                put(target, f'{patterns}\0{path}')
    for tar in tars():
        for data in packed(tar):
            put('tar', data)
            put('archive', data)
    for manifest in MANIFESTS:
        put('manifest', json.dumps(manifest))
    for image in IMAGES:
        put('config', json.dumps(image))
    for reference in REFERENCES:
        put('reference', reference)
    for url in GIT_URLS:
        put('git_url', url)
    for text in GIT_MODULES:
        put('git_modules', text)
    for request in ssh_requests():
        put('ssh_agent', request)
    for key in ssh_keys():
        put('ssh_key', key)
        lines = key.split(b'\n')
        if b'OPENSSH' in lines[0]:
            put('ssh_key', b'\0' + base64.b64decode(b''.join(lines[1:-2])))
    put('toc', bytes(range(256)))
    put('unpack', bytes(range(0, 200)))
    put('unpack', bytes([3, 0, 0, 9, 5, 1, 0, 9, 0, 4, 0, 9, 255, 0, 6, 0, 9, 6, 3, 2, 9, 3, 9, 0, 9, 0, 2, 0, 4]))
    for seed in (FUZZ / 'seeds').glob('*/*'):
        if seed not in MADE:
            seed.unlink(missing_ok=True)


main()
