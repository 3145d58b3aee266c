import { bytesText } from '../logic/format.ts';
import { saveBlob } from '../logic/saving.ts';
import { SHOWN, type Shown } from '../logic/values.ts';
import { CopyButton } from './copy_button.tsx';
import { Icon } from './icon.tsx';

interface Props {
  shown: Shown;
  blob: Blob | null;
  /** What it is saved as, without an ending. */
  name: string;
}

/** An answer: text as far as there is room, bytes as their size; both can be saved whole. */
export function ValueView({ shown, blob, name }: Props) {
  const { text, size, cut, bytes } = shown;
  return (
    <div class="value">
      {bytes ? <p>{bytesText(size)} of bytes</p> : <pre tabIndex={0}>{text}</pre>}
      {cut && (
        <p class="hint">
          The first {bytesText(SHOWN)} of {bytesText(size)}. Download it to see the rest.
        </p>
      )}
      <p class="buttons">
        {!bytes && !cut && <CopyButton text={text} what="answer" />}
        {blob && (
          <button
            type="button"
            class="small"
            onClick={() => saveBlob(blob, name + (bytes ? '.bin' : '.json'))}
            aria-label="Download answer"
          >
            <Icon name="down" />
            Download
          </button>
        )}
      </p>
    </div>
  );
}
