import type { Asking } from '../logic/asking.ts';
import { millisText } from '../logic/format.ts';
import { ErrorBox } from '../parts/error_box.tsx';
import { ValueView } from '../parts/value_view.tsx';

/** What came of a call. */
export function AnswerPanel({ asking, name }: { asking: Asking; name: string }) {
  return (
    <section class="card answer" aria-label="Answer" aria-busy={asking.state === 'running'}>
      <p role="status" class="summary">
        {summary(asking)}
      </p>
      <ul class="answers">
        {asking.answers.map(({ peer, shown, blob, error, took }) => (
          <li>
            {peer && (
              <p class="who">
                {peer.name} <span class="mono">{peer.id}</span> <span class="note">{millisText(took)}</span>
              </p>
            )}
            {shown && <ValueView shown={shown} blob={blob} name={name} />}
            <ErrorBox error={error} />
          </li>
        ))}
      </ul>
      {asking.total > asking.answers.length && <p class="hint">The first {asking.answers.length} answers are shown.</p>}
    </section>
  );
}

function summary({ state, everyone, good, asked, took }: Asking): string {
  const count = everyone ? `${good} of ${asked} answered` : '';
  if (state === 'running') return count || 'Waiting for the answer…';
  if (state === 'cancelled') return `Cancelled after ${millisText(took)}`;
  if (everyone) return `${count} in ${millisText(took)}`;
  return `${good ? 'Answered' : 'Failed'} in ${millisText(took)}`;
}
