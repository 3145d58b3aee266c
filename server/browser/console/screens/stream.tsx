import { useEffect, useRef } from 'preact/hooks';
import { bytesText, countText, millisText } from '../logic/format.ts';
import { saveBlob } from '../logic/saving.ts';
import { blobOf } from '../logic/values.ts';
import type { Item, Watching } from '../logic/watching.ts';
import { ErrorBox } from '../parts/error_box.tsx';

/** A stream while it comes: the newest items, the newest last, in sight. */
export function StreamPanel({ watching, name }: { watching: Watching; name: string }) {
  const { items, count, state, error, took } = watching;
  const list = useRef<HTMLOListElement>(null);
  const atEnd = useRef(true);
  useEffect(() => {
    if (atEnd.current) list.current!.scrollTop = list.current!.scrollHeight;
  }, [count]);
  const look = ({ currentTarget: box }: { currentTarget: HTMLElement }): void => {
    atEnd.current = box.scrollHeight - box.scrollTop - box.clientHeight < 30;
  };
  return (
    <section class="card answer" aria-label="Answer">
      <div class="tools">
        <p class="summary" role="status">
          {countText(count, 'item')} <span class={`badge ${state}`}>{state}</span>
          {watching.isOver && <span class="note"> after {millisText(took)}</span>}
        </p>
        {!watching.isOver && (
          <p class="buttons">
            {state === 'paused' ? (
              <button type="button" onClick={() => watching.resume()}>
                Resume
              </button>
            ) : (
              <button type="button" onClick={() => watching.pause()}>
                Pause
              </button>
            )}
            <button type="button" onClick={() => watching.stop()}>
              Stop
            </button>
          </p>
        )}
      </div>
      {state === 'paused' && <p class="hint">Paused: the sender waits until you go on, for ten minutes at most.</p>}
      {count > items.length && <p class="hint">The last {items.length} are shown.</p>}
      <ol class="items" ref={list} tabIndex={0} aria-label="Items" onScroll={look}>
        {items.map((item) => (
          <ItemView key={item.number} item={item} name={name} />
        ))}
      </ol>
      <ErrorBox error={error} />
    </section>
  );
}

function ItemView({ item: { number, at, shown }, name }: { item: Item; name: string }) {
  const { bytes, size, text, cut } = shown;
  return (
    <li>
      <span class="note">
        {number} <span class="wide">+{millisText(at)}</span>
      </span>
      {bytes ? (
        <span>
          {bytesText(size)} of bytes{' '}
          <button
            type="button"
            class="link"
            onClick={() => saveBlob(blobOf(bytes), `${name}-${number}.bin`)}
            aria-label={`Download item ${number}`}
          >
            Download
          </button>
        </span>
      ) : (
        <code>
          {text}
          {cut && ` … ${bytesText(size)} in all`}
        </code>
      )}
    </li>
  );
}
