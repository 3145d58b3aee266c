/**
 * Makes what browsers load out of src/ and console/: `node build.mjs` writes it, `node build.mjs --check` fails if what
 * is there is not what the sources come to, `node build.mjs --pack` puts the library where `npm pack` takes it.
 *
 * The same sources and the same lock file give the same bytes on every machine.
 */

import { build } from 'esbuild';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';

const HERE = import.meta.dirname;
const SERVED = join(HERE, '../bonevalue_server/browser');
/** Most bytes of the library, compressed as a web server would: so that growth is a decision. */
const MAX_LIBRARY = 47 * 1024;

const { version } = JSON.parse(readFileSync(join(HERE, 'package.json'), 'utf8'));
const OPTIONS = {
  absWorkingDir: HERE,
  bundle: true,
  minify: true,
  target: 'es2022',
  charset: 'utf8',
  legalComments: 'none',
  define: { BV_VERSION: JSON.stringify(version) },
  banner: { js: `/*! BoneValue ${version}, MIT licence */` },
  write: false,
  logLevel: 'warning',
};

/** Names and bytes of all that is built. */
async function make() {
  const files = new Map();
  const library = [
    ['src/main.ts', 'BV.js', 'iife'],
    ['src/module.ts', 'BV.mjs', 'esm'],
  ];
  for (const [source, name, format] of library) {
    const { outputFiles } = await build({ ...OPTIONS, entryPoints: [source], format });
    files.set(name, Buffer.from(outputFiles[0].contents));
  }
  files.set('BV.d.ts', Buffer.from(declarations()));
  for (const [name, bytes] of await makeConsole()) files.set(`console/${name}`, bytes);
  return files;
}

/** The types of the library: src/types.ts declares them all, and needs nothing else. */
function declarations() {
  const types = readFileSync(join(HERE, 'src/types.ts'), 'utf8');
  return `${types}
/** The tab as a peer. */
export declare const $BV: BoneValue;
export default $BV;

/** The class of all errors. */
export declare const BVError: BoneValue['BVError'];
export type BVError = BVErrorInfo;

declare global {
  /** What the classic script defines. */
  var $BV: BoneValue;
}
`;
}

/** The console: a script and a style sheet with their hashes in their names, and the page that names them. */
async function makeConsole() {
  const { outputFiles } = await build({
    ...OPTIONS,
    entryPoints: ['console/main.tsx'],
    entryNames: '[name]-[hash]',
    outdir: 'console',
    format: 'esm',
    jsx: 'automatic',
    jsxImportSource: 'preact',
    tsconfig: 'console/tsconfig.json',
  });
  const files = outputFiles.map(({ path, contents }) => [path.slice(join(HERE, 'console/').length), Buffer.from(contents)]);
  let page = readFileSync(join(HERE, 'console/index.html'), 'utf8');
  for (const [name] of files) {
    const plain = name.replace(/-[A-Z0-9]+\./, '.');
    if (!page.includes(`"${plain}"`)) throw new Error(`console/index.html does not name ${plain}`);
    page = page.replace(`"${plain}"`, `"${name}"`);
  }
  return [...files, ['index.html', Buffer.from(page)]];
}

function write(folder, files) {
  rmSync(folder, { recursive: true, force: true });
  for (const [name, bytes] of files) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), bytes);
  }
}

/** What there is that should not be, what is missing, and what is not as it should be. */
function differences(folder, files) {
  const there = new Set(
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1)),
  );
  const wrong = [...there].filter((name) => !files.has(name));
  for (const [name, bytes] of files) {
    if (!there.has(name) || !bytes.equals(readFileSync(join(folder, name)))) wrong.push(name);
  }
  return wrong;
}

function report(files) {
  for (const [name, bytes] of files) {
    if (/\.m?js$|\.css$/.test(name)) {
      console.log(`${name}: ${bytes.length} bytes, ${gzipSync(bytes, { level: 9 }).length} with gzip`);
    }
  }
  const size = gzipSync(files.get('BV.js'), { level: 9 }).length;
  if (size > MAX_LIBRARY) throw new Error(`BV.js has ${size} bytes with gzip; at most ${MAX_LIBRARY} are meant`);
}

const files = await make();
switch (process.argv[2]) {
  case undefined:
    write(SERVED, files);
    report(files);
    break;
  case '--pack':
    write(join(HERE, 'dist'), [...files].filter(([name]) => name.startsWith('BV')));
    copyFileSync(join(HERE, '../../LICENSE'), join(HERE, 'LICENSE')); // npm takes none from outside of the package
    break;
  case '--check': {
    const wrong = differences(SERVED, files);
    report(files);
    if (wrong.length) {
      console.error(`stale: ${wrong.join(', ')} in server/bonevalue_server/browser; run \`make browser\``);
      process.exitCode = 1;
    }
    break;
  }
  default:
    console.error('usage: node build.mjs [--check | --pack]');
    process.exitCode = 2;
}
