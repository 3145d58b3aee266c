import { useEffect, useState } from 'preact/hooks';
import type { BVErrorInfo } from '../../src/types.ts';
import { bytesText, dateText } from '../logic/format.ts';
import { href } from '../logic/route.ts';
import { openSink } from '../logic/saving.ts';
import { fetchFile, listFolder, sendFile, type Entry } from '../logic/transfers.ts';
import { ErrorBox } from '../parts/error_box.tsx';
import { useAction, useFocus, useStore } from '../parts/hooks.ts';
import { Icon } from '../parts/icon.tsx';
import { TransferList } from './transfer_list.tsx';

interface Props {
  id: string;
  /** The alias of the peer. */
  name: string;
  module: string;
  /** The folder, from the root that the peer serves; empty for that root. */
  path: string;
}

/** A folder of a peer. */
export function FilesPanel({ id, name, module, path }: Props) {
  const store = useStore();
  const heading = useFocus();
  const target = store.bv.get(id);
  const [found, setFound] = useState<{ entries: Entry[]; more: boolean } | null>(null);
  const [error, setError] = useState<BVErrorInfo | null>(null);
  const [asked, setAsked] = useState(0);
  const below = (entry: string): string => (path ? `${path}/${entry}` : entry);

  useEffect(() => {
    const abort = new AbortController();
    setError(null);
    listFolder(target, module, path, abort.signal).then(
      setFound,
      (problem) => abort.signal.aborted || setError(problem as BVErrorInfo),
    );
    return () => abort.abort();
  }, [asked]);

  const fetching = useAction(async ({ name: file, size }: Entry) => {
    const sink = await openSink(file);
    if (sink)
      store.transfer(file, 'down', size, (own, signal) => fetchFile(target, module, below(file), sink, own, signal));
  });

  const send = (files: FileList | null): void => {
    for (const file of files ?? []) {
      const transfer = store.transfer(file.name, 'up', file.size, (own, signal) =>
        sendFile(target, module, path, file, own, signal),
      );
      void transfer.ended.then(() => setAsked((count) => count + 1));
    }
  };

  return (
    <section aria-label="Files" class="files">
      <h2 ref={heading} tabIndex={-1} class="unseen">
        Folder {path || module}
      </h2>
      <div class="tools">
        <Crumbs id={id} module={module} path={path} />
        <p class="buttons">
          <button type="button" class="small" onClick={() => setAsked(asked + 1)} aria-label="List again">
            <Icon name="refresh" />
            List again
          </button>
          <label class="button small">
            <Icon name="up" />
            Send files
            <input
              type="file"
              multiple
              aria-label="Send files into this folder"
              onChange={({ currentTarget: input }) => {
                send(input.files);
                input.value = '';
              }}
            />
          </label>
        </p>
      </div>
      <ErrorBox error={error ?? fetching.error} />
      <TransferList />
      {!found && !error && <p role="status">Asking {name} for the list…</p>}
      {found && (
        <div class="card flush">
          <table aria-label="Files">
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col" class="number">
                  Size
                </th>
                <th scope="col" class="wide">
                  Changed
                </th>
                <th scope="col">
                  <span class="unseen">What to do</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {found.entries.map((entry) => (
                <EntryRow
                  key={entry.name}
                  entry={entry}
                  address={href({ screen: 'files', id, module, path: below(entry.name) })}
                  onFetch={() => void fetching.run(entry)}
                />
              ))}
            </tbody>
          </table>
          {!found.entries.length && <p class="empty">This folder is empty.</p>}
        </div>
      )}
      {found?.more && <p class="hint">Only the first {found.entries.length} entries are shown.</p>}
    </section>
  );
}

function EntryRow({
  entry: { name, kind, size, modified },
  address,
  onFetch,
}: {
  entry: Entry;
  address: string;
  onFetch: () => void;
}) {
  return (
    <tr>
      <th scope="row" class="file-name">
        <Icon name={kind === 'folder' ? 'folder' : 'file'} />
        {kind === 'folder' ? <a href={address}>{name}</a> : <span>{name}</span>}
      </th>
      <td class="number">{kind === 'file' ? bytesText(size) : ''}</td>
      <td class="wide">{dateText(modified)}</td>
      <td class="number">
        {kind === 'file' && (
          <button type="button" class="small" aria-label={`Download ${name}`} onClick={onFetch}>
            <Icon name="down" />
            <span class="wide">Download</span>
          </button>
        )}
      </td>
    </tr>
  );
}

function Crumbs({ id, module, path }: { id: string; module: string; path: string }) {
  const parts = path.split('/').filter(Boolean);
  const to = (count: number): string => href({ screen: 'files', id, module, path: parts.slice(0, count).join('/') });
  return (
    <nav class="crumbs" aria-label="Folder">
      {[module, ...parts].map((part, index) => (
        <>
          {index > 0 && <span aria-hidden="true">/</span>}
          <a href={to(index)} aria-current={index === parts.length ? 'page' : undefined}>
            {part}
          </a>
        </>
      ))}
    </nav>
  );
}
