import { useId } from 'preact/hooks';
import { bytesText, millisText } from '../logic/format.ts';
import type { Transfer } from '../logic/transfers.ts';
import { ErrorBox } from '../parts/error_box.tsx';
import { useStore } from '../parts/hooks.ts';
import { Icon } from '../parts/icon.tsx';

/** What is being copied, and what has been. */
export function TransferList() {
  const store = useStore();
  const { transfers } = store;
  if (!transfers.length) return null;
  return (
    <section class="card transfers" aria-label="Copies">
      <ul>
        {transfers.map((transfer) => (
          <TransferRow key={transfer.key} transfer={transfer} />
        ))}
      </ul>
      {transfers.some(({ state }) => state !== 'running') && (
        <button type="button" class="small" onClick={() => store.dismissTransfers()}>
          Clear what is over
        </button>
      )}
    </section>
  );
}

function TransferRow({ transfer }: { transfer: Transfer }) {
  const { name, direction, state, done, size, error } = transfer;
  const id = useId();
  return (
    <li>
      <Icon name={direction} />
      <span id={id} class="file-name">
        {name}
      </span>
      <progress
        aria-labelledby={id}
        value={state === 'done' ? 1 : done}
        max={state === 'done' ? 1 : Math.max(size, done, 1)}
      />
      <span class="note" role={state === 'running' ? undefined : 'status'}>
        {progressText(transfer)}
      </span>
      {state === 'running' && (
        <button type="button" class="small" aria-label={`Cancel ${name}`} onClick={() => transfer.cancel()}>
          Cancel
        </button>
      )}
      <ErrorBox error={error} />
    </li>
  );
}

function progressText({ state, done, size, started, took, direction }: Transfer): string {
  const elapsed = state === 'running' ? performance.now() - started : took;
  const rate = elapsed > 500 ? `, ${bytesText(Math.round((done / elapsed) * 1000))}/s` : '';
  if (state === 'running') return `${bytesText(done)} of ${bytesText(size)}${rate}`;
  if (state !== 'done') return state;
  const what = `${direction === 'down' ? 'fetched' : 'sent'} ${bytesText(size)}`;
  return `${what} in ${millisText(took)}${rate}, SHA-256 compared`;
}
