"""What is built of the browser library: it fits its sources, holds nothing that it should not, and installs."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import BUILT, NODE, NPM, SOURCES, TSC, run

ROOT = Path(__file__).parents[2]
LIBRARY = ("BV.js", "BV.mjs", "BV.d.ts")
pytestmark = pytest.mark.timeout(300)


class Copy:
    """The sources in a folder where a test may change them, with the tools beside them."""

    def __init__(self, folder: Path) -> None:
        self.sources = folder / "server" / "browser"
        self.built = folder / "server" / "bonevalue_server" / "browser"
        shutil.copytree(SOURCES, self.sources, ignore=shutil.ignore_patterns("node_modules", "dist", "LICENSE"))
        tools = self.sources / "node_modules"
        shutil.copytree(SOURCES / "node_modules" / "preact", tools / "preact")  # goes into what is built, path and all
        for name in ("esbuild", "@esbuild"):
            (tools / name).symlink_to(SOURCES / "node_modules" / name)
        shutil.copy(ROOT / "LICENSE", folder)

    def build(self, *args: str) -> tuple[int, str]:
        """Run the build; its exit code, and what it complains of."""
        done = run(*NODE, "build.mjs", *args, folder=self.sources)
        return done.returncode, done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    made = Copy(tmp_path)
    assert made.build() == (0, "")
    return made


def bytes_in(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_folder_gives_the_bytes_that_are_served(copy: Copy) -> None:
    assert bytes_in(copy.built) == bytes_in(BUILT), "what is built is stale: run `make browser`"
    assert copy.build("--check") == (0, "")


def test_what_is_stale_is_named(copy: Copy) -> None:
    page = copy.built / "console" / "index.html"
    kept = page.read_bytes()
    page.write_bytes(kept + b"\n")
    assert copy.build("--check") == (
        1,
        "stale: console/index.html in server/bonevalue_server/browser; run `make browser`\n",
    )
    page.unlink()
    assert "stale: console/index.html in" in copy.build("--check")[1]
    page.write_bytes(kept)
    (copy.built / "BV.js.map").touch()
    assert "stale: BV.js.map in" in copy.build("--check")[1]
    (copy.built / "BV.js.map").unlink()
    assert copy.build("--check") == (0, "")

    module = copy.sources / "src" / "main.ts"
    module.write_text(module.read_text() + "console.info('changed');\n")
    assert "stale: BV.js in" in copy.build("--check")[1]
    types = copy.sources / "src" / "types.ts"
    types.write_text(types.read_text() + "export type Changed = string;\n")
    assert "stale: BV.js, BV.d.ts in" in copy.build("--check")[1]
    assert copy.build() == (0, "")
    assert copy.build("--check") == (0, "")


#: What makes code of text, in scripts and in documents.
MAKES_CODE = r"\beval\(|\bFunction\(|document\.write|insertAdjacentHTML|outerHTML\s*=|\bimport\("


@pytest.mark.parametrize("name", ["BV.js", "BV.mjs"])
def test_the_library_makes_no_code_and_asks_nobody_else(name: str) -> None:
    script = (BUILT / name).read_text(encoding="utf-8")
    assert not re.findall(MAKES_CODE + r"|innerHTML|https?://[\w.-]", script)


def test_the_console_makes_no_code_and_asks_nobody_else() -> None:
    (file,) = BUILT.glob("console/main-*.js")
    script = file.read_text(encoding="utf-8")
    assert not re.findall(MAKES_CODE, script)
    # What looks like an address is a name of XML's, which nobody fetches, or an example in a text for people.
    assert set(re.findall(r"https?://([\w.-]+)", script)) <= {"www.w3.org", "example.org", "localhost"}
    # Preact can set HTML if it is told to; we never tell it.
    ours = "".join(path.read_text() for path in (SOURCES / "console").rglob("*.ts*"))
    assert "innerHTML" not in ours and "InnerHTML" not in ours


def test_there_is_one_version() -> None:
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    package = json.loads((SOURCES / "package.json").read_text())
    lock = json.loads((SOURCES / "package-lock.json").read_text())
    assert ours == package["version"] == lock["version"] == lock["packages"][""]["version"] == version("bonevalue")
    for name in ("BV.js", "BV.mjs"):
        assert (BUILT / name).read_text().startswith(f"/*! BoneValue {ours}, MIT licence */")
    assert "dependencies" not in package


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((SOURCES / "package-lock.json").read_text())
    fetched = [entry for name, entry in lock["packages"].items() if name]
    assert fetched and all("integrity" in entry and "resolved" not in entry for entry in fetched)


# -- types -----------------------------------------------------------------------------------------------------------

#: A page's script that uses all there is; and mistakes, each of which the compiler must find.
CONSUMER = """
import $BV, { BVError, type BoneValue, type Call, type LinkInfo, type PeerInfo, type Result } from 'bonevalue';

const stop = new AbortController();
await $BV.connect('bv.example.org', 'alice', 'secret', {
  realm: 'example.org', visible: false, pool: { maxOutgoing: 3 }, ice: { servers: [], policy: 'relay' },
  rpc: { timeout: 1000, maxBody: 1 }, refuse: [],
});
$BV.on('connect', () => undefined);
$BV.on('disconnect', (error) => console.log(error?.code));
$BV.on('peerconnect', (peer: PeerInfo) => console.log(peer.name, peer.id));
$BV.on('peerdisconnect', (id: string) => console.log(id));
$BV.on('newuser', (alias: string) => console.log(alias));
$BV.on('link', (link: LinkInfo) => console.log(link.state));
$BV.off('newuser', console.log);
$BV.module('Sum', ({ request, caller, signal, deadline }: Call) => [request, caller.name, signal.aborted, deadline]);
$BV.module('Count', async function* (e) { if (e.items) for await (const item of e.items) yield item; },
  { allow: ['Us'], concurrency: 2, doc: '', request: {}, response: {}, stream: true });
$BV.module('Fails', (e) => { throw new BVError('busy', e.callId, { retryAfter: 1 }); });
$BV.module('Fails', null);
$BV.get('*').message('Echo', { text: 'Friday' }, false, (response) => console.log(response.text), console.error);
$BV.get('Echo', { text: 'Friday' }, false, (response) => console.log(response));
const answer = await $BV.get('bob').call('Echo', new Uint8Array(3),
  { timeout: 5, signal: stop.signal, idempotent: true, keepAlive: false, items: new Blob(['a']) });
const results: Result[] = [];
for await (const result of $BV.get('*').callAll('Echo', null, { first: 1, concurrency: 2 })) results.push(result);
for await (const item of $BV.get('bob').stream('Tail', {}, { items: [1, 2] })) console.log(item, answer);
const [module] = await $BV.get('bob').modules();
console.log(module?.name, (await $BV.get('bob').ping({ timeout: 3 })).path?.local, $BV.get('bob').peers().length);
console.log($BV.getId().length, $BV.online, $BV.username, $BV.fingerprint, $BV.version, $BV.links(), $BV.peers());
$BV.requestToken('bob', (data) => console.log(data.token));
console.log((await $BV.requestToken('bob')).token, (await $BV.claimToken('bob', 'token')).fingerprint);
await $BV.register('', 'carol', 'secret');
await $BV.changePassword('secret');
await $BV.removeUser('bob');
const other: BoneValue = $BV.create();
await other.disconnect();
try { await other.connect('', 'a', 'b'); } catch (error) {
  if (error instanceof BVError) console.log(error.code, error.retryAfter, error.callId, error.peer);
}

// @ts-expect-error: there is no such event
$BV.on('peerconnected', () => undefined);
// @ts-expect-error: a peer is no text
$BV.on('peerconnect', (peer: string) => console.log(peer));
// @ts-expect-error: no password
$BV.connect('', 'alice');
// @ts-expect-error: a number of milliseconds
$BV.get('*').call('Echo', {}, { timeout: '5s' });
// @ts-expect-error: a target is asked, not told
$BV.get('*').message();
// @ts-expect-error: read only
$BV.online = true;
// @ts-expect-error: no such policy
$BV.connect('', 'alice', 'secret', { ice: { policy: 'none' } });
// @ts-expect-error: nothing is called so
$BV.peer('bob');
"""
#: A classic script.
CLASSIC = """
$BV.module('My.Echo.Module', function (e) { e.callback({ text: 'Not ' + e.request.text }); });
$BV.on('peerconnect', function (peer) {
  $BV.get(peer.id).message('My.Echo.Module', { text: 'Friday' }, false, function (response) {
    console.log(response.text);
  });
});
$BV.connect('', 'admin', 'test');
// @ts-expect-error: no such method
$BV.calls();
"""


def compiles(folder: Path, **options: Any) -> None:
    """The compiler finds nothing in a folder."""
    config = {"strict": True, "noEmit": True, "target": "es2022", "lib": ["es2022", "dom", "dom.iterable"], "types": []}
    modules = {"module": "esnext", "moduleResolution": "bundler"}
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": {**config, **modules}, **options}))
    done = run(*TSC, "-p", str(folder))
    assert done.returncode == 0, done.stdout


def test_a_classic_script_has_types(tmp_path: Path) -> None:
    (tmp_path / "page.ts").write_text(CLASSIC)
    shutil.copy(BUILT / "BV.d.ts", tmp_path)
    compiles(tmp_path)


# -- the npm package -------------------------------------------------------------------------------------------------

#: Where there is no browser.
ELSEWHERE = """
import $BV, { BVError } from 'bonevalue';

console.log($BV.version, $BV.online, $BV.getId() === '', $BV.peers().length);
try {
  await $BV.connect('ws://127.0.0.1:9', 'alice', 'a long password');
} catch (error) {
  console.log(error instanceof BVError, error.code, error.message);
}
"""


def npm(*args: str, folder: Path) -> str:
    """Run npm without any network; gives what it printed."""
    cache = {"npm_config_cache": str(folder / ".npm"), "npm_config_offline": "true", "npm_config_audit": "false"}
    done = run(*NPM, *args, folder=folder, environ={**cache, "npm_config_fund": "false"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_of_npm_installs_and_has_types(copy: Copy, tmp_path: Path) -> None:
    (packed,) = json.loads(npm("pack", "--json", folder=copy.sources))
    names = {file["path"] for file in packed["files"]}
    assert names == {*(f"dist/{name}" for name in LIBRARY), "package.json", "README.md", "LICENSE"}

    project = tmp_path / "project"
    project.mkdir()
    (project / "package.json").write_text('{"type": "module", "private": true}')
    npm("install", str(copy.sources / packed["filename"]), folder=project)
    for name in LIBRARY:
        assert (project / "node_modules" / "bonevalue" / "dist" / name).read_bytes() == (copy.built / name).read_bytes()

    (project / "elsewhere.js").write_text(ELSEWHERE)
    done = run(*NODE, "elsewhere.js", folder=project)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == f"{packed['version']} false true 0"
    assert re.fullmatch(r"true config .*WebRTC.*", second)

    (project / "page.ts").write_text(CONSUMER)
    compiles(project, include=["page.ts"])


# -- the wheel and the sdist -----------------------------------------------------------------------------------------


def pack(kind: str, folder: Path) -> Path:
    """Build the distribution of Python."""
    done = run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder))
    assert done.returncode == 0, done.stderr
    (made,) = folder.iterdir()
    return made


def test_the_wheel_carries_what_is_served_and_no_sources(tmp_path: Path) -> None:
    with zipfile.ZipFile(pack("wheel", tmp_path)) as wheel:
        prefix = "bonevalue_server/browser/"
        served = {name.removeprefix(prefix): wheel.read(name) for name in wheel.namelist() if name.startswith(prefix)}
        assert served == bytes_in(BUILT)
        assert not [name for name in wheel.namelist() if re.search(r"node_modules|(?<!\.d)\.tsx?$|build\.mjs", name)]


def test_the_sdist_carries_sources_and_what_is_served_but_no_tools(tmp_path: Path) -> None:
    with tarfile.open(pack("sdist", tmp_path)) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"server/bonevalue_server/browser/{name}" for name in bytes_in(BUILT)} <= names
    assert {"server/browser/src/types.ts", "server/browser/build.mjs", "server/browser/package-lock.json"} <= names
    assert not [name for name in names if re.search("node_modules|server/browser/dist|server/browser/LICENSE", name)]
