/** Small drawings, of strokes in the colour of the text. They say nothing that the text beside them does not. */

const PATHS = {
  logo:
    'M9 14.5a3 3 0 1 1-6 0 3 3 0 0 1 6 0Zm3.5 3.5a3 3 0 1 1-6 0 3 3 0 0 1 6 0ZM17.5 6a3 3 0 1 1-6 0 3 3 0 0 1 6 0Z' +
    'M21 9.5a3 3 0 1 1-6 0 3 3 0 0 1 6 0ZM8.5 12.5l4-4m-1 7 4-4',
  copy: 'M9 9h11v11H9zM15 9V4H4v11h5',
  check: 'm5 13 4 4L19 7',
  refresh: 'M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6',
  down: 'M12 4v11m-5-4.5 5 5 5-5M5 20h14',
  up: 'M12 16V5M7 9.5l5-5 5 5M5 20h14',
  folder: 'M3 6h6l2 2.5h10V19H3z',
  file: 'M6 3h8l4 4v14H6zM14 3v4h4',
  back: 'm14 6-6 6 6 6',
  close: 'm6 6 12 12M18 6 6 18',
  plus: 'M12 5v14M5 12h14',
  warning: 'M12 4 2.5 20h19zM12 10v5m0 2.5v.1',
  automatic: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Zm0 0v18m3-17.4v16.8m3-14.8v12.8',
  light:
    'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8Zm0-5v2m0 14v2M3 12h2m14 0h2' +
    'M5.6 5.6 7 7m10 10 1.4 1.4m0-12.8L17 7M7 17l-1.4 1.4',
  dark: 'M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5Z',
  out: 'M10 4H5v16h5M9 12h11m-4.5-4.5L20 12l-4.5 4.5',
};

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
