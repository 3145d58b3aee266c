import type { BVErrorInfo } from '../../src/types.ts';
import { adviceOn } from '../logic/explain.ts';
import { clip, sentence, spanText } from '../logic/format.ts';
import { Icon } from './icon.tsx';

/** What went wrong, and what to do about it. */
export function ErrorBox({ error, quiet = false }: { error: BVErrorInfo | Error | null; quiet?: boolean }) {
  if (!error) return null;
  const { code = '', callId, retryAfter } = error as Partial<BVErrorInfo>;
  const advice = adviceOn(code);
  return (
    <div class="box bad" role={quiet ? undefined : 'alert'}>
      <Icon name="warning" />
      <div>
        <p>{sentence(clip(error.message || code, 2000))}</p>
        {advice && <p>{advice}</p>}
        <p class="facts">
          {code && (
            <span>
              Code <code>{clip(code, 64)}</code>
            </span>
          )}
          {callId && (
            <span>
              Call id <code>{clip(callId, 64)}</code>
            </span>
          )}
          {retryAfter !== undefined && <span>Try again in {spanText(retryAfter)}</span>}
        </p>
      </div>
    </div>
  );
}
