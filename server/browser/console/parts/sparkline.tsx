import { countText, millisText } from '../logic/format.ts';
import { SAMPLES } from '../logic/monitor.ts';

const HEIGHT = 20;

/** The last measurements as a line, from zero up; gaps where no answer came. */
export function Sparkline({ samples }: { samples: (number | null)[] }) {
  const known = samples.filter((sample) => sample !== null);
  const [least, most] = [Math.min(...known), Math.max(...known)];
  const label = known.length
    ? `Round-trip time, last ${countText(samples.length, 'measurement')}: ${millisText(least)} to ${millisText(most)}`
    : 'Round-trip time: nothing measured yet';
  return (
    <svg
      class="sparkline"
      viewBox={`0 0 ${SAMPLES - 1} ${HEIGHT}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={label}
    >
      <path class="floor" d={`M0 ${HEIGHT - 0.5}H${SAMPLES - 1}`} />
      <path d={line(samples, most * 1.15)} />
    </svg>
  );
}

function line(samples: (number | null)[], top: number): string {
  const offset = SAMPLES - samples.length;
  let pen = 'M';
  return samples
    .map((sample, index) => {
      if (sample === null) {
        pen = 'M';
        return '';
      }
      const y = (HEIGHT - 1) * (1 - sample / top) + 0.5;
      // A single point would not be seen: it becomes a short dash.
      const step = `${pen}${offset + index} ${y.toFixed(2)}${pen === 'M' ? 'h.01' : ''}`;
      pen = 'L';
      return step;
    })
    .join('');
}
